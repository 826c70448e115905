//! Links: two connections cabled together.

use std::cmp::Ordering;
use std::ptr;
use std::sync::Arc;

use crate::conn::{self, Conn, State, plug};
use crate::error::{Error, Result};
use crate::forward::clock::Clock;
use crate::forward::ring;
use crate::forward::thread::choose_loop;
use crate::runtime::event_loop::Loop;
use crate::runtime::handle::Ref;
use crate::runtime::lock::Guard;
use crate::switch::{Kind, Switch};

/// The states of two connections, locked in the order of their slots. Nothing but links locks two. The order
/// of tokens would not do: one may be invented, and then higher than the live one of its slot.
type Both = (Guard<'static, State>, Guard<'static, State>);

fn lock_both(a: Ref<Conn>, b: Ref<Conn>) -> Result<Both> {
    match ptr::from_ref(a.slot).cmp(&ptr::from_ref(b.slot)) {
        Ordering::Less => {
            let one = a.state()?;
            Ok((one, b.state()?))
        }
        Ordering::Greater => {
            let other = b.state()?;
            Ok((a.state()?, other))
        }
        // Two tokens of one slot are not both live.
        Ordering::Equal => Err(Error::Handle),
    }
}

/// Joins two connections: what one receives the other sends.
pub fn link(a: Ref<Conn>, b: Ref<Conn>) -> Result<()> {
    link_by(None, a, b)
}

/// The same on a clock of the program's.
pub fn link_on(clock: Ref<Clock>, a: Ref<Conn>, b: Ref<Conn>) -> Result<()> {
    // Held, so that the clock is not closed before the link is on it.
    let _clock = clock.state()?;
    link_by(Some(clock), a, b)
}

fn link_by(clock: Option<Ref<Clock>>, a: Ref<Conn>, b: Ref<Conn>) -> Result<()> {
    if a.token == b.token {
        return Err(Error::invalid("a connection cannot be linked to itself"));
    }
    let _plugging = ring::check_link(a, b)?;
    let (mut one, mut other) = lock_both(a, b)?;
    let (mut end, mut left) = (loose_end(&one), loose_end(&other));
    let refuses_a = one.refuses_plug("a").filter(|_| end.is_none());
    if let Some(refusal) = refuses_a.or(other.refuses_plug("b").filter(|_| left.is_none())) {
        return Err(refusal);
    }
    let runner = clock.map(|clock| clock.slot.runner());
    // What is under way by another clock comes to nothing.
    if end.take_if(|end| !goes_by(end, runner)).is_some() {
        plug::unplug(a, &mut one);
    }
    if left.take_if(|left| !goes_by(left, runner)).is_some() {
        plug::unplug(b, &mut other);
    }
    match (end, left) {
        (None, None) => {
            link_anew(runner.unwrap_or_else(choose_loop), (a, &mut one), (b, &mut other))
        }
        (Some(end), None) => plug::plug(b, &mut other, &end),
        (None, Some(end)) => plug::plug(a, &mut one, &end),
        (Some(end), Some(left)) => {
            // What is in flight keeps its numbers, and what comes later is behind it.
            let number = left.lock().number;
            let mut inside = end.lock();
            inside.number = inside.number.max(number);
            drop(inside);
            plug::move_out(b, &mut other);
            plug::plug(b, &mut other, &end).inspect_err(|_| {
                // Where that fails too, it is linked to nothing that it could be unlinked from.
                let _ = plug::plug(b, &mut other, &left);
            })
        }
    }
}

/// Whether a link goes by the clock of that loop, or of the system.
fn goes_by(link: &Arc<Switch>, runner: Option<&'static Loop>) -> bool {
    runner.map_or(!link.runner.is_by_hand(), |runner| ptr::eq(link.runner, runner))
}

fn link_anew(
    runner: &'static Loop,
    (a, one): (Ref<Conn>, &mut State),
    (b, other): (Ref<Conn>, &mut State),
) -> Result<()> {
    let switch = Switch::new(Kind::Link { is_whole: false }, runner);
    plug::plug(a, one, &switch)?;
    plug::plug(b, other, &switch).inspect_err(|_| plug::unplug(a, one))
}

/// The link of a connection that is linked to nothing, since it has outlived the other side.
fn loose_end(state: &State) -> Option<Arc<Switch>> {
    let port = state.port.as_ref()?;
    port.switch.lock().is_loose(port.id).then(|| port.switch.clone())
}

/// Takes the link out at both sides.
pub fn unlink(conn: Ref<Conn>) -> Result<()> {
    let state = conn.state()?;
    let port = state.port.as_ref().filter(|port| port.switch.is_link());
    let port = port.ok_or_else(|| Error::invalid("the connection is not linked"))?;
    let (switch, other) = (port.switch.clone(), port.other_side());
    drop(state);
    if let Some(other) = other.and_then(|other| conn::table().get(other).ok()) {
        if let Ok((mut one, mut two)) = lock_both(conn, other) {
            // The other side may have ended meanwhile.
            let _ = plug::unplug_from(other, &mut two, &switch);
            return plug::unplug_from(conn, &mut one, &switch);
        }
    }
    plug::unplug_from(conn, &mut *conn.state()?, &switch)
}
