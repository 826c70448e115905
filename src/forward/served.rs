//! The listeners that a hub serves, and its port handler, which is told of each peer that comes and leaves.
//!
//! A peer that has come is attached at once, or, if there is a handler, when that has been told. The handler is
//! called by a thread of the hub's, which there is only while something is to be told; on a clock of the
//! program's by who advances that, or closes the hub.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::MutexGuard;

use crate::conn::close_handler::{self, CloseCall};
use crate::conn::leaving::Leaving;
use crate::conn::{self, Conn, end, plug, release};
use crate::error::Result;
use crate::forward::hub::{self, Hub};
use crate::forward::joining::{self, Joining, Notice};
use crate::forward::thread::choose_loop;
use crate::listener::{self, Listener};
use crate::runtime::callback::{self, Doing, PortHandler};
use crate::runtime::handle::{Ref, Token};
use crate::runtime::lock::lock;
use crate::sys::thread;

/// A call of a handler that is due on a thread of the caller's. Whoever holds this must make it, once.
#[derive(Clone, Copy)]
#[must_use]
pub enum Call {
    Close(CloseCall),
    Port(PortCall),
}

/// A call of a port handler.
#[derive(Clone, Copy)]
#[must_use]
pub struct PortCall {
    hub: Ref<Hub>,
    handler: PortHandler,
    notice: Notice,
}

impl PortCall {
    /// Makes the call. Returns as [`callback::run`] does; where that is true, `returned` must follow.
    #[must_use]
    pub fn run(self) -> bool {
        let PortCall { hub, handler, notice } = self;
        callback::run(hub.token, Doing::Port, died, || {
            handler.call(notice.conn().token, notice.has_come());
        })
    }

    /// Does what follows the call. Returns a call that is to be made next, where nobody else will.
    pub fn returned(self) -> Option<PortCall> {
        end_call(self.hub, self.notice);
        let joining = lock(&self.hub.slot.joining);
        let is_left = joining.hub == self.hub.token && joining.is_closed && joining.is_by_hand();
        drop(joining);
        if is_left { next_call(self.hub) } else { None }
    }
}

/// Accepts from a listener from now on, and attaches what is accepted.
pub fn serve(hub: Ref<Hub>, listener: Ref<Listener>) -> Result<()> {
    let served = listener::serve(listener, hub.token, come, hub::begin_serving(hub)?);
    let is_closed = hub::end_serving(hub, served.is_ok().then_some(listener)).is_err();
    if is_closed && served.is_ok() {
        // The hub was closed since, and closes what it serves. It may be closed already.
        let _ = listener::close(listener);
    }
    served
}

/// Sets what is told of the peers that come from now on, or nothing. Where this thread may wait for handlers,
/// it returns when the handler before is not running and never will again.
pub fn set_handler(hub: Ref<Hub>, handler: Option<PortHandler>) -> Result<()> {
    joining::set_resume(|hub| {
        if let Ok(hub) = hub::table().get(hub) {
            resume(hub, lock(&hub.slot.joining));
        }
    });
    let state = hub.state()?;
    let mut joining = lock(&hub.slot.joining);
    joining.set_handler(handler);
    let calls = joining.calls;
    drop((joining, state));
    wait_while(hub, |joining| {
        joining.call.is_some() && joining.calls == calls
            || joining.has_thread && joining.handler.is_none()
    });
    Ok(())
}

/// Waits while `is_so` and not all has been told of a closed hub, if this thread may wait for handlers.
pub fn wait_while(hub: Ref<Hub>, is_so: impl Fn(&Joining) -> bool) {
    if callback::inside() {
        return;
    }
    loop {
        let joining = lock(&hub.slot.joining);
        if joining.hub != hub.token || !is_so(&joining) {
            return;
        }
        let wake = joining.wake.clone();
        // Read under the lock, so that no change is missed.
        let epoch = wake.epoch();
        drop(joining);
        wake.wait_change(epoch);
    }
}

/// A peer has come, and is a connection now.
fn come(hub: Token, conn: Ref<Conn>) {
    let Ok(hub) = hub::table().get(hub) else {
        return release::discard(conn);
    };
    let mut joining = lock(&hub.slot.joining);
    if joining.hub == hub.token && joining.come(conn) {
        resume(hub, joining);
    } else {
        drop(joining);
        attach(hub, conn, false);
    }
}

/// A connection has left, whose state is locked.
fn leave(hub: Token, handler: u64, conn: Token) -> Option<bool> {
    let (Ok(hub), Ok(conn)) = (hub::table().get(hub), conn::table().get(conn)) else {
        return Some(false);
    };
    let mut joining = lock(&hub.slot.joining);
    if joining.hub != hub.token {
        return Some(false);
    }
    let is_told = joining.leave(conn, handler);
    // Who closes the hub may wait for this one.
    joining.wake.raise();
    match is_told {
        Some(true) => resume(hub, joining),
        Some(false) => free_if_over(hub, joining),
        None => {}
    }
    is_told
}

/// Has somebody tell what is to be told.
fn resume(hub: Ref<Hub>, mut joining: MutexGuard<'_, Joining>) {
    let is_called = joining.has_thread || joining.call.is_some();
    let Some(runner) = joining.runner.filter(|_| joining.has_notices() && !is_called) else {
        return;
    };
    if runner.is_by_hand() {
        runner.look(hub.token);
        return;
    }
    joining.has_thread = thread::spawn(c"qnet-port", move || run(hub)).is_ok();
    if !joining.has_thread {
        runner.rest(hub.token);
    }
}

/// The thread. Nothing with a destructor lives here across the callback, which may unwind past.
fn run(hub: Ref<Hub>) {
    while let Some(call) = guarded(hub, || next_call(hub)).flatten() {
        if !call.run() || guarded(hub, || call.returned()).is_none() {
            return;
        }
    }
}

/// A panic ends the thread, and another goes on.
fn guarded<R>(hub: Ref<Hub>, part: impl FnOnce() -> R) -> Option<R> {
    let done = catch_unwind(AssertUnwindSafe(part)).ok();
    if done.is_none() {
        let mut joining = lock(&hub.slot.joining);
        joining.is_in_handler = false;
        let call = joining.call;
        drop(joining);
        // While there is the call, nobody else is told anything.
        let _ = catch_unwind(AssertUnwindSafe(|| abandon(hub, call)));
        let mut joining = lock(&hub.slot.joining);
        (joining.call, joining.has_thread) = (None, false);
        joining.wake.raise();
        resume(hub, joining);
    }
    done
}

/// Ends what a panic has broken off, so that no peer counts as present for ever.
fn abandon(hub: Ref<Hub>, call: Option<Notice>) {
    match call {
        Some(Notice::Came(conn)) if !conn.state().is_ok_and(|state| state.port.is_some()) => {
            turn_away(hub, conn, true);
        }
        Some(notice @ Notice::Left(..)) => follow(hub, notice, true),
        _ => {}
    }
}

/// Does what needs no call, until a call is to be made, which has begun then. `None` where there is nothing
/// more to do, or another thread is making one.
pub fn next_call(hub: Ref<Hub>) -> Option<PortCall> {
    loop {
        let mut joining = lock(&hub.slot.joining);
        if joining.hub != hub.token || joining.call.is_some() {
            return None;
        }
        let number = joining.number;
        let Some((notice, handler)) = joining.next() else {
            joining.has_thread = false;
            joining.wake.raise();
            free_if_over(hub, joining);
            return None;
        };
        drop(joining);
        let Some(handler) = handler else {
            follow(hub, notice, false);
            continue;
        };
        if let Notice::Came(conn) = notice {
            if let Ok(mut state) = conn.state() {
                state.leaving = Some(leaving(hub, number));
            }
        }
        return Some(PortCall { hub, handler, notice });
    }
}

fn leaving(hub: Ref<Hub>, handler: u64) -> Box<Leaving> {
    Box::new(Leaving::new(hub.token, handler, leave))
}

/// What follows when something has been told, or nobody is to be.
fn follow(hub: Ref<Hub>, notice: Notice, is_told: bool) {
    match notice {
        Notice::Came(conn) => attach(hub, conn, is_told),
        Notice::Left(conn, _) => {
            if let Ok(mut state) = conn.state() {
                state.leaving = None;
                conn.slot.changed(&state);
                drop(state);
                release::give_back_if_over(conn);
            }
        }
    }
}

fn end_call(hub: Ref<Hub>, notice: Notice) {
    let mut joining = lock(&hub.slot.joining);
    joining.is_in_handler = false;
    drop(joining);
    follow(hub, notice, true);
    let mut joining = lock(&hub.slot.joining);
    joining.call = None;
    joining.wake.raise();
    if joining.is_by_hand() {
        if joining.has_notices() {
            return resume(hub, joining);
        }
        free_if_over(hub, joining);
    }
}

/// Gives the hub's slot back, once it is closed and all has been told.
pub fn free_if_over(hub: Ref<Hub>, mut joining: MutexGuard<'_, Joining>) {
    if joining.is_closed && joining.is_idle() {
        let Joining { wake, .. } = std::mem::take(&mut *joining);
        drop(joining);
        hub::table().give_back(hub.token);
        wake.raise();
    }
}

/// A port handler has ended its thread. The hub has none any more, unless another was set meanwhile.
fn died(token: Token, _: Doing) {
    let Ok(hub) = hub::table().get(token) else {
        return;
    };
    let mut joining = lock(&hub.slot.joining);
    let Some(notice) = joining.call.filter(|_| joining.hub == token) else {
        return;
    };
    let is_left_alone = joining.is_closed && joining.is_by_hand();
    if joining.called == joining.number || is_left_alone {
        joining.handler = None;
    }
    joining.has_thread = false;
    drop(joining);
    end_call(hub, notice);
    if is_left_alone {
        // Without a handler there is no call to make.
        let _ = next_call(hub);
        return;
    }
    let joining = lock(&hub.slot.joining);
    if joining.hub == token {
        if joining.has_notices() { resume(hub, joining) } else { free_if_over(hub, joining) }
    }
}

/// Attaches a peer, before anybody reads from it, perhaps behind the call of the handler that was told of it. If
/// it cannot be, it is hung up on; unless it is closed, or the program has begun to use it otherwise, when told
/// of it: then it is the program's.
fn attach(hub: Ref<Hub>, conn: Ref<Conn>, is_told: bool) {
    if hub::attach_own(hub, conn).is_err() {
        turn_away(hub, conn, is_told);
    }
}

fn turn_away(hub: Ref<Hub>, conn: Ref<Conn>, is_told: bool) {
    let Ok(mut state) = conn.state() else {
        let mut joining = lock(&hub.slot.joining);
        if is_told && joining.hub == hub.token && !joining.has_left {
            joining.present -= 1;
        }
        return;
    };
    if state.port.is_some() || state.handler.is_some() {
        plug::report_leaving(conn, &mut state);
    } else {
        drop(state);
        hang_up(conn);
    }
}

/// Hangs up on a peer that is not attached.
pub fn hang_up(conn: Ref<Conn>) {
    if let Ok(mut state) = conn.state() {
        state.is_hubs = true;
        end::end_locally(conn, &mut state);
        close_handler::call_on_own_thread(conn, &mut state, choose_loop());
        plug::report_leaving(conn, &mut state);
        drop(state);
        release::give_back_if_over(conn);
    }
}
