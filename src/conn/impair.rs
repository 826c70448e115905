//! Impairing a connection's frames, and what else is set on its cable. While it is plugged in, that lies in the
//! switch.

use std::sync::Arc;

use crate::conn::{Conn, State};
use crate::emulation::direction::{Counts, Direction};
use crate::emulation::random::Side;
use crate::emulation::spec::Spec;
use crate::emulation::trace::Trace;
use crate::error::{Error, Result};
use crate::options::Options;
use crate::runtime::handle::Ref;
use crate::runtime::lock::Guard;
use crate::switch::cable::Cable;
use crate::switch::vlan::Vlan;
use crate::sys::file;

/// The directions of a connection; see qnet_impair().
///
/// Functions take int rather than this type, which only names the values.
#[allow(non_camel_case_types, clippy::enum_variant_names)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub enum qnet_direction {
    /// From the connection's peer into the link or hub.
    QNET_IN = 1,
    /// From the link or hub to the connection's peer.
    QNET_OUT = 2,
    /// Both.
    QNET_BOTH = 3,
}

/// What became of the frames of one direction of a connection since it was created; see
/// qnet_get_impair_stats(). At any time
///
///   frames + duplicated = lost + dropped + discarded + passed + waiting + flying
///
/// Later releases only add members at the end of the struct.
#[allow(non_camel_case_types)]
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct qnet_impair_stats {
    /// Frames that came while there was an impairment, or any were in flight.
    pub frames: u64,
    /// Bytes of the frames in frames.
    pub bytes: u64,
    /// Frames that did not match (`match`), and so passed at once.
    pub bypassed: u64,
    /// Frames that were lost (`loss`).
    pub lost: u64,
    /// Frames marked Congestion Experienced (`ecn`, `mark`).
    pub marked: u64,
    /// Copies made (`duplicate`).
    pub duplicated: u64,
    /// Frames of which a bit was flipped (`corrupt`).
    pub corrupted: u64,
    /// Frames that found too many waiting (`limit`), or in a hub no room (QNET_OPT_FLIGHT_BYTES).
    pub dropped: u64,
    /// Frames that left after one that had come later.
    pub reordered: u64,
    /// Frames that were in flight when the connection ended or was unlinked or detached, or its cable
    /// pulled.
    pub discarded: u64,
    /// Frames that got through.
    pub passed: u64,
    /// Bytes of the frames in passed.
    pub passed_bytes: u64,
    /// Frames that wait for the rate now.
    pub waiting: u64,
    /// Frames that are delayed now.
    pub flying: u64,
    /// Bytes of the frames in waiting and flying.
    pub held_bytes: u64,
}

impl From<Counts> for qnet_impair_stats {
    fn from(counts: Counts) -> qnet_impair_stats {
        qnet_impair_stats {
            frames: counts.frames,
            bytes: counts.bytes,
            bypassed: counts.bypassed,
            lost: counts.lost,
            marked: counts.marked,
            duplicated: counts.duplicated,
            corrupted: counts.corrupted,
            dropped: counts.dropped,
            reordered: counts.reordered,
            discarded: counts.discarded,
            passed: counts.passed,
            passed_bytes: counts.passed_bytes,
            waiting: counts.waiting,
            flying: counts.flying,
            held_bytes: counts.held_bytes,
        }
    }
}

/// The largest file of a trace, in bytes.
const TRACE_BYTES: u64 = 16 << 20;

/// What a text asks for, with the lines of its trace.
#[derive(Clone, Default)]
pub struct Text {
    spec: Spec,
    trace: Option<Arc<Trace>>,
}

impl Text {
    /// Reads a text, and the file that it names.
    pub fn read(text: &[u8]) -> Result<Text> {
        let mut spec = Spec::parse(text)?;
        let mut trace = None;
        if let Some(named) = &mut spec.trace {
            named.path = file::absolute_path(&named.path)?;
            trace = Some(Arc::new(Trace::parse(&file::contents(&named.path, TRACE_BYTES)?)?));
        }
        if !spec.is_short() {
            return Err(Error::invalid(
                "a text has at most 128 KiB, with its seed and the whole path",
            ));
        }
        Ok(Text { spec, trace })
    }

    pub fn print(&self) -> Vec<u8> {
        self.spec.print()
    }

    fn put(&self, direction: &mut Direction, now: u64) {
        direction.set(now, self.spec.clone(), self.trace.clone());
    }
}

/// The texts that a listener's connections start with.
#[derive(Clone, Default)]
pub struct Texts {
    pub vlan: Option<Arc<Vlan>>,
    inn: Text,
    out: Text,
}

impl Texts {
    pub fn of(&mut self, side: Side) -> &mut Text {
        match side {
            Side::In => &mut self.inn,
            Side::Out => &mut self.out,
        }
    }

    /// The cable of a connection that starts with them, if they ask for one, or its options.
    pub fn cable(&self, options: &Options) -> Option<Box<Cable>> {
        let is_none = self.inn.spec.is_none() && self.out.spec.is_none();
        if is_none && !Cable::is_asked_for(options) {
            return None;
        }
        let (mut cable, now) = (Cable::new(options), UNPLUGGED);
        self.inn.put(&mut cable.inn, now);
        self.out.put(&mut cable.out, now);
        Some(cable)
    }
}

/// The directions that a number of C names.
pub fn sides(direction: i32) -> Result<&'static [Side]> {
    const IN: i32 = qnet_direction::QNET_IN as i32;
    const OUT: i32 = qnet_direction::QNET_OUT as i32;
    const BOTH: i32 = qnet_direction::QNET_BOTH as i32;
    match direction {
        IN => Ok(&[Side::In]),
        OUT => Ok(&[Side::Out]),
        BOTH => Ok(&[Side::In, Side::Out]),
        _ => Err(Error::invalid(format!(
            "direction {direction} is none: QNET_IN is 1, QNET_OUT 2, QNET_BOTH 3"
        ))),
    }
}

/// The one direction that a number of C names.
pub fn side(direction: i32) -> Result<Side> {
    match sides(direction)? {
        [side] => Ok(*side),
        _ => Err(Error::invalid("one direction is to be told: QNET_IN or QNET_OUT")),
    }
}

/// The connection of which the cable is: a device that a hub gave the program is plugged in at its other end.
pub fn plugged_end(conn: Ref<Conn>) -> Result<Ref<Conn>> {
    // Two states are locked by links alone.
    let twin = conn.state()?.twin();
    let is_hubs =
        |twin: &Ref<Conn>| twin.state().is_ok_and(|state| state.is_hubs && state.port.is_some());
    Ok(twin.filter(is_hubs).unwrap_or(conn))
}

/// The same and its state.
pub fn plugged_state(conn: Ref<Conn>) -> Result<(Ref<Conn>, Guard<'static, State>)> {
    let end = plugged_end(conn)?;
    let plugged = end.state().map(|state| (end, state));
    // The hub may have given its end back since.
    plugged.or_else(|_| conn.state().map(|state| (conn, state)))
}

/// The same, unless it has ended, or the connection itself has.
pub fn open_end(conn: Ref<Conn>) -> Result<(Ref<Conn>, Guard<'static, State>)> {
    let own_end = conn.state()?.life.end_reason().cloned();
    let (conn, state) = plugged_state(conn)?;
    match own_end.as_ref().or(state.life.end_reason()) {
        Some(reason) => Err(reason.clone()),
        None => Ok((conn, state)),
    }
}

/// What time it is for a cable that is not plugged in, since nothing is under way there.
const UNPLUGGED: u64 = 0;

/// What time it is for a connection's cable.
fn time_of(state: &State) -> u64 {
    state.port.as_ref().map_or(UNPLUGGED, |port| port.switch.runner.time())
}

/// Puts a text in force.
pub fn set(conn: Ref<Conn>, direction: i32, text: &[u8]) -> Result<()> {
    let sides = sides(direction)?;
    let text = Text::read(text)?;
    let (conn, mut state) = open_end(conn)?;
    let now = time_of(&state);
    change(conn, &mut state, !text.spec.is_none(), |cable| {
        sides.iter().for_each(|side| text.put(cable.direction(*side), now));
    });
    Ok(())
}

/// Applies options to the cable.
pub fn configure(conn: Ref<Conn>, state: &mut State, options: &Options) {
    change(conn, state, Cable::is_asked_for(options), |cable| cable.configure(options));
}

/// Changes what is set on a cable, between two frames. Where nothing ever was, something is if it `is_needed`.
fn change(conn: Ref<Conn>, state: &mut State, is_needed: bool, change: impl FnOnce(&mut Cable)) {
    let State { port, cable, options, .. } = state;
    // A system call, before the lock that a loop waits for.
    let spare = is_needed.then(|| Cable::new(options));
    let Some(port) = port else {
        *cable = cable.take().or(spare);
        if let Some(cable) = cable {
            change(cable);
        }
        return;
    };
    let mut inside = port.switch.lock();
    let cable = &mut inside.outlet(port.id).cable;
    *cable = cable.take().or(spare);
    if let Some(cable) = cable {
        change(cable);
    }
    inside.look_at_plug(port.id);
    let other = inside.conn_opposite(port.id);
    if port.switch.runner.is_by_hand() {
        // The clock tells at once what is due next.
        inside.set_alarms(port.id);
    }
    drop(inside);
    // What is due leaves, and the next time is set; what was held up here goes on.
    [Some(conn.token), other].into_iter().flatten().for_each(|it| port.switch.runner.look(it));
}

/// The text in force.
pub fn text(conn: Ref<Conn>, direction: i32) -> Result<Vec<u8>> {
    let side = side(direction)?;
    ask(conn, |cable, _| cable.map_or(Vec::new(), |cable| cable.direction(side).text()))
}

pub fn stats(conn: Ref<Conn>, direction: i32) -> Result<qnet_impair_stats> {
    let side = side(direction)?;
    ask(conn, |cable, now| {
        let counts = cable.map(|cable| cable.direction(side).counts(now));
        counts.unwrap_or_default().into()
    })
}

fn ask<R>(conn: Ref<Conn>, asked: impl FnOnce(Option<&mut Cable>, u64) -> R) -> Result<R> {
    let (_, mut state) = plugged_state(conn)?;
    let now = time_of(&state);
    let State { port, cable, .. } = &mut *state;
    let Some(port) = port else {
        return Ok(asked(cable.as_deref_mut(), now));
    };
    let mut inside = port.switch.lock();
    Ok(asked(inside.outlet(port.id).cable.as_deref_mut(), now))
}
