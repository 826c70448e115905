//! What the thread that dials does: it has the state handler told, waits, dials, gives the connection its
//! new socket, and has that told.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use crate::conn::redial::{Next, Redial};
use crate::conn::{self, Conn, carrier, down, end};
use crate::error::Result;
use crate::net::dial::{Attempt, Order};
use crate::options::{self, Options};
use crate::runtime::event_loop::{Loop, REST, Turns};
use crate::runtime::handle::Ref;
use crate::sys::clock::Deadline;

/// How long one attempt may take, unless the caller has said so.
const ATTEMPT: Duration = Duration::from_secs(10);

/// What the thread that dials is to do for it now.
enum Plan {
    Wait(Deadline),
    Begin(Order),
    /// The attempt that is under way.
    GoOn,
}

/// What the thread does: turns of connections, each with the attempt under way for it.
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

/// Its turn for the connection, with the attempt under way, if there is one. Returns until when it
/// waits, unless there is something new; or `None` where there is nothing more to do.
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

fn dialled(conn: Ref<Conn>, dialled: Result<OwnedFd>) {
    // It may have ended meanwhile, and then what was dialled goes with this call.
    let Ok(mut state) = conn.state() else {
        return;
    };
    if !state.life.has_ended()
        && dialled.and_then(|fd| down::come_up(conn, &mut state, fd)).is_err()
        && let Some(down) = state.redial.as_mut().and_then(|redial| redial.down.as_mut())
    {
        down.since = Instant::now();
    }
}

/// To dial now, or when.
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
