//! The turns of the thread that dials: for a connection that is down it has the state handler called, waits,
//! dials, gives the connection its new socket, and has the state handler called again.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use crate::conn::dialled::{Next, Redial};
use crate::conn::{self, Conn, carrier, down, end};
use crate::error::Result;
use crate::net::dial::{Attempt, Order};
use crate::options::{self, Options};
use crate::runtime::event_loop::{Loop, REST, Turns};
use crate::runtime::handle::Ref;
use crate::sys::clock::Deadline;

/// How long one attempt may take, unless the caller has set that.
const ATTEMPT: Duration = Duration::from_secs(10);

/// What the thread is to do for a connection now.
enum Plan {
    Wait(Deadline),
    Begin(Order),
    /// Go on with the attempt that is under way.
    GoOn,
}

/// Turns of connections, each with the attempt under way for it.
pub fn turns() -> Turns {
    let mut attempts = BTreeMap::new();
    Box::new(move |runner, token, _, _| {
        let mut attempt = attempts.remove(&token);
        let conn = conn::table().get(token).ok();
        let until = conn.and_then(|conn| turn(conn, &mut attempt, runner));
        runner.set_time(token, until.unwrap_or(Deadline::Never));
        attempts.extend(attempt.filter(|_| until.is_some()).map(|attempt| (token, attempt)));
    })
}

/// A turn of one connection, with the attempt under way, if there is one. Returns when the next is due
/// though nothing happens, or `None` where there is nothing more to do.
fn turn(conn: Ref<Conn>, attempt: &mut Option<Attempt>, runner: &'static Loop) -> Option<Deadline> {
    end::guarded(conn, "dials again", || {
        loop {
            match plan(conn, attempt.is_some())? {
                Plan::Wait(until) => return Some(until),
                Plan::Begin(order) => {
                    *attempt = Some(Attempt::new(order, conn.token, runner));
                }
                Plan::GoOn => {}
            }
            let dialling = attempt.as_mut()?;
            let Some(result) = dialling.turn() else {
                return Some(dialling.deadline());
            };
            *attempt = None;
            dialled(conn, result);
        }
    })
    .flatten()
}

fn plan(conn: Ref<Conn>, is_dialling: bool) -> Option<Plan> {
    let mut guard = conn.state().ok()?;
    let state = &mut *guard;
    if state.life.has_ended() {
        return None;
    }
    let redial = state.redial.as_mut()?;
    loop {
        match redial.next {
            _ if redial.carrier.is_busy() => return Some(Plan::Wait(Deadline::Never)),
            Next::TellDown if carrier::tell(&mut redial.carrier, conn, false) => {
                redial.next = Next::Dial
            }
            Next::TellUp if carrier::tell(&mut redial.carrier, conn, true) => {
                redial.next = Next::Look
            }
            Next::TellDown | Next::TellUp => {
                return Some(Plan::Wait(Deadline::after(REST)));
            }
            Next::Look if redial.down.is_none() => {
                redial.user = None;
                return None;
            }
            Next::Look => redial.next = Next::TellDown,
            Next::Dial if is_dialling => return Some(Plan::GoOn),
            Next::Dial => return plan_dial(redial, &state.options),
        }
    }
}

/// Goes on with what an attempt came to.
fn dialled(conn: Ref<Conn>, dialled: Result<OwnedFd>) {
    // The connection may have ended meanwhile; then the new socket is closed with this call.
    let Ok(mut state) = conn.state() else {
        return;
    };
    if state.life.has_ended() || dialled.and_then(|fd| down::come_up(conn, &mut state, fd)).is_ok()
    {
        return;
    }
    if let Some(down) = state.redial.as_mut().and_then(|redial| redial.down.as_mut()) {
        down.since = Instant::now();
    }
}

/// Dials now, or waits until that is due.
fn plan_dial(redial: &Redial, options: &Options) -> Option<Plan> {
    let due = Deadline::At(redial.down.as_ref()?.since + options.reconnects()?);
    if !due.passed() {
        return Some(Plan::Wait(due));
    }
    let deadline = match options.get(options::DIAL_TIMEOUT_MS) {
        -1 => Deadline::after(ATTEMPT),
        _ => options.dial_deadline(),
    };
    let (target, buffers) = (redial.target.clone(), options.buffers());
    Some(Plan::Begin(Order { target, buffers, deadline }))
}
