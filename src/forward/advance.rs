//! Advancing a clock of the program's: what its links and hubs have to do is done here, on the caller's thread,
//! in the order in which it is due.
//!
//! A turn of a connection writes what waits there and takes in what its socket holds, at the present time. It is
//! looked at when an advance begins, and again when something that it depends on has changed. When nobody is to
//! be looked at any more, time moves on to what is due next. No lock is held between two turns.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use rustix::event::PollFlags;

use crate::conn::close_handler::{self, CloseCall};
use crate::conn::{self, Conn, State, release, service};
use crate::emulation::flight::Moment;
use crate::error::{Error, Result};
use crate::forward::clock::{Clock, Tour};
use crate::forward::served::{self, Call};
use crate::forward::{hub, turn};
use crate::listener;
use crate::runtime::callback::{self, Doing};
use crate::runtime::event_loop::{Due, Loop};
use crate::runtime::handle::{Ref, Token};
use crate::runtime::lock::lock;
use crate::runtime::service::Source;
use crate::runtime::wait::{self, Tried};
use crate::runtime::wake::{PollFds, Wake};
use crate::switch::Inside;
use crate::switch::port::Port;
use crate::switch::sorter::Written;
use crate::sys::clock::Deadline;

/// How many rounds of a listener's turns an advance gives: a peer may connect again and again.
const ROUNDS: usize = 256;

/// How far an advance is.
pub struct Progress {
    to: i64,
    is_begun: bool,
    frames: u64,
}

impl Progress {
    pub fn to(to: i64) -> Progress {
        Progress { to, is_begun: false, frames: 0 }
    }

    /// How many frames were forwarded.
    pub fn frames(&self) -> i32 {
        i32::try_from(self.frames).unwrap_or(i32::MAX)
    }
}

/// The right to advance a clock. Others wait until this is dropped.
struct Turn {
    clock: Ref<Clock>,
    /// Present until then.
    tour: Option<Box<Tour>>,
    is_over: bool,
}

/// Who advances a clock.
struct Advance<'a> {
    runner: &'static Loop,
    tour: &'a mut Tour,
}

/// Advances a clock, until it is done or a handler is to be called: then the caller calls that, and goes
/// on with the same progress. In between, others may advance the clock.
pub fn advance(clock: Ref<Clock>, progress: &mut Progress) -> Result<Option<Call>> {
    let mut turn = begin(clock, progress)?;
    let Some(tour) = turn.tour.as_deref_mut() else {
        return Ok(None);
    };
    let mut advance = Advance { runner: clock.slot.runner(), tour };
    let call = advance.go_on(progress.to as u64)?;
    progress.frames += advance.take_frames();
    turn.is_over = call.is_none();
    Ok(call)
}

/// Waits for those who advance the clock already.
fn begin(clock: Ref<Clock>, progress: &mut Progress) -> Result<Turn> {
    let runner = clock.slot.runner();
    let look = || {
        let mut state = clock.state()?;
        if callback::inside() {
            return Err(Error::Busy("a handler cannot advance a clock"));
        }
        let now = runner.time();
        let to = progress.to;
        if !progress.is_begun && u64::try_from(to).map_or(true, |to| to < now) {
            return Err(Error::invalid(format!("{to} ns is before the clock's {now} ns")));
        }
        let epoch = state.wake.epoch();
        let tour = state.tour.take();
        Ok(tour.map_or_else(|| Tried::Pending((state.wake.clone(), epoch)), Tried::Done))
    };
    let forever = |_: &(Arc<Wake>, u32)| Deadline::Never;
    let wait = |(wake, epoch): (Arc<Wake>, u32), until| wake.wait_fds(epoch, PollFds::new(), until);
    let mut tour = wait::until(look, forever, wait).map_err(|error| match error {
        // It was closed meanwhile, which is no end of a connection.
        Error::Closed => Error::Handle,
        error => error,
    })?;
    if !std::mem::replace(&mut progress.is_begun, true) {
        runner.look_at_all();
        tour.taken.clear();
        tour.stuck.clear();
    }
    tour.work.now = runner.now();
    Ok(Turn { clock, tour: Some(tour), is_over: false })
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Ok(mut state) = self.clock.state() {
            state.tour = self.tour.take();
            state.is_behind = !self.is_over;
            state.wake.raise();
        }
    }
}

impl Advance<'_> {
    fn go_on(&mut self, to: u64) -> Result<Option<Call>> {
        loop {
            if let Some(call) = self.next_close_call() {
                return Ok(Some(Call::Close(call)));
            } else if let Some(token) = self.runner.pop_look() {
                if let Some(call) = hub::table().get(token).ok().and_then(served::next_call) {
                    return Ok(Some(Call::Port(call)));
                }
                self.guarded(token, |advance| advance.turn(token));
            } else if let Some(conn) = self.tour.stuck.front().copied() {
                self.wait_for_room(conn)?;
                self.tour.stuck.pop_front();
                self.runner.look(conn.token);
            } else if let Some((due, token)) = self.runner.pop_alarm(to) {
                self.move_to(due.0);
                self.guarded(token, |advance| advance.leave(token, due));
            } else {
                self.move_to(to);
                return Ok(None);
            }
        }
    }

    /// Moves the clock on, never back: another thread may have moved it further.
    fn move_to(&mut self, time: u64) {
        if time > self.runner.time() {
            self.runner.move_to(time);
            self.tour.taken.clear();
            self.tour.work.now = self.runner.now();
        }
    }

    /// A connection whose turn panics ends.
    fn guarded(&mut self, token: Token, turn: impl FnOnce(&mut Self)) {
        if catch_unwind(AssertUnwindSafe(|| turn(self))).is_err() {
            let (number, ended) = (self.tour.number, std::mem::take(&mut self.tour.ended));
            *self.tour = Tour { number, ended, ..Tour::default() };
            self.tour.work.now = self.runner.now();
            if conn::table().get(token).is_ok_and(turn::fail) {
                self.runner.look(token);
            }
        }
    }

    fn take_frames(&mut self) -> u64 {
        std::mem::take(&mut self.written().frames)
    }

    fn written(&mut self) -> &mut Written {
        self.tour.work.sorter.sending.written.get_or_insert_default()
    }

    /// The close handler of a connection that has ended.
    fn next_close_call(&mut self) -> Option<CloseCall> {
        while let Some(conn) = self.tour.ended.pop_front() {
            let call = conn
                .state()
                .ok()
                .and_then(|mut state| close_handler::due(conn, &mut state, Doing::CallersClose));
            if call.is_some() {
                return call;
            }
            release::give_back_if_over(conn);
        }
        None
    }

    /// Where a connection is plugged in, if that is on this clock.
    fn port_of(&self, state: &State) -> Option<Arc<Port>> {
        state.port.clone().filter(|port| std::ptr::eq(port.switch.runner, self.runner))
    }

    /// The other end of a connection, where both are on this clock.
    fn twin_of(&self, conn: Ref<Conn>) -> Option<Ref<Conn>> {
        let twin = conn.state().ok()?.twin()?;
        let is_here = self.port_of(&*twin.state().ok()?).is_some();
        is_here.then_some(twin)
    }

    fn turn(&mut self, token: Token) {
        if let Ok(listener) = listener::table().get(token) {
            for _ in 0..ROUNDS {
                if !listener::serve_turn(listener, self.runner) {
                    return;
                }
            }
        } else if let Ok(conn) = conn::table().get(token) {
            self.turn_of_conn(conn);
        }
    }

    fn turn_of_conn(&mut self, conn: Ref<Conn>) {
        let Ok(state) = conn.state() else {
            return;
        };
        let most = state.options.flight_bytes();
        let Some(port) = self.port_of(&state) else {
            let is_plugged = state.port.is_some();
            drop(state);
            if !is_plugged {
                turn::look_after(conn, self.runner);
            }
            return;
        };
        drop(state);
        let (twin, id) = (self.twin_of(conn), port.id);
        let mut inside = port.switch.lock();
        if !inside.has(id, conn.token) {
            return;
        }
        inside.number = self.tour.number;
        if inside.outlet(id).is_full() {
            inside.write_and_resume(id);
            self.note_written(conn, inside.outlet(id).is_full());
        }
        if inside.is_altered(id) && inside.is_loose(id) {
            inside.lose_other_side(id);
        }
        let has_come =
            !inside.is_cut(id) && self.take_in(conn, &mut inside, id, twin.is_some(), most);
        let is_over = inside.is_over(id);
        // One that was found while the connection was still being plugged in has passed unheard.
        inside.outlet(id).note_alarm(self.runner.time());
        inside.set_alarms(id);
        self.tour.number = inside.number;
        let is_link = inside.is_link();
        drop(inside);
        if let Some(twin) = twin.filter(|_| has_come) {
            // There is room for more.
            self.look_if_full(twin);
        }
        self.spread(is_link);
        if is_over {
            self.end(conn);
        }
    }

    fn note_written(&mut self, conn: Ref<Conn>, is_full: bool) {
        self.written().ports.push((conn.token, is_full));
    }

    fn look_if_full(&mut self, conn: Ref<Conn>) {
        let port = lock(&conn.slot.place).clone();
        if let Some(port) = port {
            let mut inside = port.switch.lock();
            if inside.has(port.id, conn.token) && inside.outlet(port.id).is_full() {
                self.runner.look(conn.token);
            }
        }
    }

    /// Takes in what the socket holds. Of a peer that keeps writing only so much, and what comes from this clock
    /// beyond that goes nowhere. Returns whether something has come.
    fn take_in(
        &mut self,
        conn: Ref<Conn>,
        inside: &mut Inside,
        id: usize,
        is_ours: bool,
        most: u64,
    ) -> bool {
        let Tour { work, taken, .. } = &mut *self.tour;
        let before = taken.get(&conn.token).copied().unwrap_or(0);
        let (mut sum, counts) = (before, &conn.slot.rx_counts);
        while (is_ours || sum < most) && inside.watch_to_read(id) {
            let came =
                turn::read(conn, inside, id, work, |inside, bytes, sorter, now| match sum < most {
                    true => inside.take_in(id, bytes, counts, sorter, now),
                    false => Inside::refuse(bytes, counts),
                });
            if came == 0 {
                break;
            }
            sum += came as u64;
        }
        if sum > before {
            taken.insert(conn.token, sum);
        }
        sum > before
    }

    /// Has those looked at whom it concerns that something was written: the other ends that are on this clock.
    /// A link whose socket is full holds up the clock.
    fn spread(&mut self, is_link: bool) {
        let mut ports = std::mem::take(&mut self.written().ports);
        for (token, is_full) in ports.drain(..) {
            let Ok(conn) = conn::table().get(token) else {
                continue;
            };
            if let Some(twin) = self.twin_of(conn) {
                self.runner.look(twin.token);
            } else if is_link && is_full && self.tour.stuck.iter().all(|it| it.token != token) {
                self.tour.stuck.push_back(conn);
            }
        }
        // The list's memory is used again.
        self.written().ports = ports;
    }

    /// Has that leave which is due at a connection first.
    fn leave(&mut self, token: Token, (time, number): Due) {
        let Ok(conn) = conn::table().get(token) else {
            return;
        };
        let port = lock(&conn.slot.place).clone();
        let Some(Port { switch, id, .. }) = port.as_deref() else {
            return;
        };
        let (mut inside, id) = (switch.lock(), *id);
        if !inside.has(id, token) {
            return;
        }
        inside.number = self.tour.number;
        let were_full = (inside.is_in_full(id), inside.is_out_full(id));
        let work = &mut self.tour.work;
        inside.leave_first(id, &mut work.sorter, work.now, Moment { time, number });
        inside.set_alarms(id);
        if were_full.0 || inside.is_over(id) {
            self.runner.look(token);
        }
        if let Some(other) = inside.conn_opposite(id).filter(|_| were_full.1) {
            self.runner.look(other);
        }
        self.tour.number = inside.number;
        let is_link = inside.is_link();
        drop(inside);
        self.spread(is_link);
    }

    /// Ends a connection that is over.
    fn end(&mut self, conn: Ref<Conn>) {
        if let Ok(mut state) = conn.state() {
            service::end_if_over(conn, &mut state);
            if state.life.has_ended() {
                self.tour.ended.push_back(conn);
            }
        }
    }

    /// Waits until all is written that a link has for a connection, as long as its sends would wait.
    fn wait_for_room(&mut self, conn: Ref<Conn>) -> Result<()> {
        let look = || {
            // Gone meanwhile, it holds up nothing.
            let Ok(state) = conn.state() else {
                return Ok(Tried::Done(()));
            };
            let Some(port) = self.port_of(&state) else {
                return Ok(Tried::Done(()));
            };
            let socket = state.socket().clone();
            let epoch = socket.wake.epoch();
            drop(state);
            if is_written(conn, &port) {
                return Ok(Tried::Done(()));
            }
            let tx = conn.slot.sender.lock();
            let (events, until) = tx.until_room_or_loss();
            Ok(Tried::Pending((socket, epoch, events, until, tx.deadline())))
        };
        wait::until(
            look,
            |(.., deadline)| *deadline,
            |(socket, epoch, events, until, _), deadline| {
                let fd = socket.fd_for(events);
                socket.wake.wait_fd(epoch, fd, events & PollFlags::OUT, until.sooner(deadline))
            },
        )
    }
}

/// Writes what a port has. Returns whether that is all.
fn is_written(conn: Ref<Conn>, port: &Port) -> bool {
    // Others who send hold this for a moment, and what was left for them is written then.
    conn.slot.sender.lock().empty_inbox();
    let mut inside = port.switch.lock();
    !inside.has(port.id, conn.token) || inside.write_queued(port.id)
}
