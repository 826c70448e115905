//! Links: two connections cabled together.

use std::cmp::Ordering;
use std::ptr;
use std::sync::Arc;

use crate::conn::{self, Conn, State, plug};
use crate::error::{Error, Result};
use crate::forward::ring;
use crate::forward::thread::choose_loop;
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
    if a.token == b.token {
        return Err(Error::invalid("a connection cannot be linked to itself"));
    }
    let _plugging = ring::check_link(a, b)?;
    let (mut one, mut other) = lock_both(a, b)?;
    match (loose_end(&one), loose_end(&other)) {
        (None, None) => link_anew(a, &mut one, b, &mut other),
        (Some(end), None) => join(&end, b, &mut other, "b"),
        (None, Some(end)) => join(&end, a, &mut one, "a"),
        (Some(end), Some(left)) => {
            plug::move_out(b, &mut other);
            join(&end, b, &mut other, "b").inspect_err(|_| {
                // Where that fails too, it is linked to nothing that it could be unlinked from.
                let _ = plug::plug(b, &mut other, &left);
            })
        }
    }
}

fn link_anew(a: Ref<Conn>, one: &mut State, b: Ref<Conn>, other: &mut State) -> Result<()> {
    if let Some(refusal) = one.refuses_plug("a").or_else(|| other.refuses_plug("b")) {
        return Err(refusal);
    }
    let switch = Switch::new(Kind::Link { is_whole: false }, choose_loop());
    plug::plug(a, one, &switch)?;
    plug::plug(b, other, &switch).inspect_err(|_| plug::unplug(a, one))
}

/// The link of a connection that is linked to nothing, since it has outlived the other side.
fn loose_end(state: &State) -> Option<Arc<Switch>> {
    let port = state.port.as_ref()?;
    port.switch.lock().is_loose(port.id).then(|| port.switch.clone())
}

/// Takes the place of the side that has ended.
fn join(link: &Arc<Switch>, conn: Ref<Conn>, state: &mut State, argument: &str) -> Result<()> {
    match state.refuses_plug(argument) {
        Some(refusal) => Err(refusal),
        None => plug::plug(conn, state, link),
    }
}

/// Takes the link out at both sides.
pub fn unlink(conn: Ref<Conn>) -> Result<()> {
    let state = conn.state()?;
    let port = state.port.as_ref().filter(|port| port.switch.is_link());
    let port = port.ok_or_else(|| Error::invalid("the connection is not linked"))?;
    let (switch, other) = (port.switch.clone(), port.other_side());
    drop(state);
    if let Some(other) = other.and_then(|other| conn::table().get(other).ok())
        && let Ok((mut one, mut two)) = lock_both(conn, other)
    {
        // The other side may have ended meanwhile.
        let _ = plug::unplug_from(other, &mut two, &switch);
        return plug::unplug_from(conn, &mut one, &switch);
    }
    plug::unplug_from(conn, &mut *conn.state()?, &switch)
}
