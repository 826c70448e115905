//! A port from inside the switch: what it sends by and is read with, and what the loop watches for there.

use std::sync::Arc;

use crate::emulation::direction::enter::Verdict;
use crate::emulation::flight::Moment;
use crate::error::{Error, Result};
use crate::frame::{PREFIX, Walk};
use crate::net::socket::Socket;
use crate::runtime::event_loop::{ADDED, Due, Interest, Loop, NOTHING, WRITABLE};
use crate::runtime::handle::Token;
use crate::runtime::lock::Guard;
use crate::rx::Rx;
use crate::rx::counts::RxCounts;
use crate::switch::cable::{Cable, MOST_AT_ONCE, until};
use crate::switch::rules::Rules;
use crate::switch::sorter::{List, Piece, WayOut, pass_pieces};
use crate::switch::vlan::{self, Change};
use crate::tx::Tx;
use crate::tx::sender::Sender;

/// A port from inside the switch.
pub struct Outlet {
    pub conn: Token,
    sender: &'static Sender,
    pub rx_counts: &'static RxCounts,
    pub socket: Arc<Socket>,
    /// What it is read with, while the loop may read.
    pub rx: Option<Rx>,
    /// Whether somebody else held the sending part when it was last needed. The port gets a turn when
    /// that is free.
    pub is_held: bool,
    /// Whether the last write failed for want of memory: no descriptor tells when to try again.
    is_short: bool,
    /// What the port waits for.
    pub interest: Interest,
    /// What the loop's set has of that: of the socket, and of its second descriptor.
    watched: (Interest, Interest),
    /// The frames that are to be sent here this turn.
    pub pieces: List,
    /// What is set on the cable, if anything ever was.
    pub cable: Option<Box<Cable>>,
    /// When the loop is to give the port a turn for that.
    alarm: Option<Due>,
    /// What is set for the port of a hub, if anything is.
    pub rules: Option<Box<Rules>>,
}

/// What a loop's set has of a port.
pub struct Watched {
    token: Token,
    socket: Arc<Socket>,
    /// Of the socket, and of its second descriptor.
    watched: (Interest, Interest),
}

impl Watched {
    /// Takes all of it out of the set.
    pub fn end(&self, runner: &Loop) {
        // Taking a descriptor out of the set cannot fail.
        let _ = runner.watch(self.socket.fd(), self.token, self.watched.0, NOTHING);
        if let Some(fd) = self.socket.second_fd() {
            let _ = runner.watch(fd, self.token, self.watched.1, NOTHING);
        }
    }
}

impl Outlet {
    /// The port of a connection whose socket was `ADDED` to the loop's set.
    pub fn new(
        conn: Token,
        (sender, rx_counts): (&'static Sender, &'static RxCounts),
        socket: Arc<Socket>,
        cable: Option<Box<Cable>>,
        rules: Option<Box<Rules>>,
    ) -> Outlet {
        Outlet {
            conn,
            sender,
            rx_counts,
            socket,
            rx: None,
            is_held: false,
            is_short: false,
            interest: NOTHING,
            watched: (ADDED, NOTHING),
            pieces: List::EMPTY,
            cable,
            alarm: None,
            rules,
        }
    }

    /// Goes on with another socket, of which the loop's set has nothing yet.
    pub fn begin_with(&mut self, socket: Arc<Socket>) {
        self.socket = socket;
        (self.interest, self.watched) = (NOTHING, (NOTHING, NOTHING));
    }

    pub fn watched(&self) -> Watched {
        Watched { token: self.conn, socket: self.socket.clone(), watched: self.watched }
    }

    /// How the stream that is read here ended, once all before the end has been forwarded.
    pub fn end(&self) -> Option<Error> {
        self.rx.as_ref().and_then(Rx::end)
    }

    /// Whether it gets copies of what others take, and nothing else.
    pub fn is_mirror(&self) -> bool {
        self.rules.as_ref().is_some_and(|rules| rules.is_mirror)
    }

    /// Sends pieces of `bytes` with their tags changed as they say, by way of `changed` if any is. Returns how
    /// many frames were dropped.
    pub fn send_changed(
        &mut self,
        out: &mut WayOut<'_>,
        bytes: &[u8],
        pieces: impl Iterator<Item = Piece> + Clone,
        changed: &mut Vec<u8>,
    ) -> usize {
        if pieces.clone().all(|piece| piece.change == Change::None) {
            return self.send(out, bytes, pieces);
        }
        changed.clear();
        let too_long = pieces
            .map(|piece| vlan::change(piece.change, &bytes[piece.start..piece.end], changed))
            .sum();
        let mut dropped = 0;
        if !changed.is_empty() {
            dropped += self.send(out, changed, [Piece::of(changed)]);
        }
        if too_long > 0 {
            dropped += self.drop_all(out.runner, too_long);
        }
        dropped
    }

    /// Sends pieces of `bytes`, in order, or has them enter OUT. Returns how many frames were dropped for
    /// want of a cable or of room in the queue.
    #[inline]
    pub fn send(
        &mut self,
        out: &mut WayOut<'_>,
        bytes: &[u8],
        pieces: impl IntoIterator<Item = Piece, IntoIter: Clone>,
    ) -> usize {
        match self.cable.is_none() {
            true => self.send_now(out, bytes, pieces),
            false => self.send_altered(out, bytes, pieces.into_iter()),
        }
    }

    /// Sends pieces of `bytes`, in order, or leaves them to whoever holds the sending part. Returns how
    /// many frames were dropped.
    fn send_now(
        &mut self,
        out: &mut WayOut<'_>,
        bytes: &[u8],
        pieces: impl IntoIterator<Item = Piece, IntoIter: Clone>,
    ) -> usize {
        let WayOut { runner, limit, ref mut room, .. } = *out;
        let (sender, pieces) = (self.sender, pieces.into_iter());
        let tx = sender.try_lock();
        let is_left = tx.is_none();
        let mut dropped = 0;
        if is_left {
            let leave = |piece: Piece| sender.inbox.leave(&bytes[piece.start..piece.end], limit);
            dropped = pieces.clone().map(leave).sum();
        }
        if let Some(mut tx) = self.or_want(tx) {
            if !is_left {
                dropped = pass_pieces(&mut tx, bytes, pieces.clone(), room, limit);
            }
            let is_waiting = tx.is_stuck() || self.interest.contains(WRITABLE);
            self.let_go(runner, tx, is_waiting);
        }
        if let Some(written) = out.written {
            let frames = pieces.map(|piece| piece.frames).sum::<usize>() - dropped;
            written.frames += frames as u64;
            written.ports.push((self.conn, self.is_full()));
        }
        dropped
    }

    fn send_altered(
        &mut self,
        out: &mut WayOut<'_>,
        bytes: &[u8],
        pieces: impl Iterator<Item = Piece> + Clone,
    ) -> usize {
        let Some(mut cable) = self.cable.take() else {
            return 0;
        };
        let dropped = if cable.is_pulled {
            self.drop_all(out.runner, pieces.map(|piece| piece.frames).sum())
        } else if cable.out.is_idle() {
            self.send_now(out, bytes, pieces)
        } else {
            let mut passing = std::mem::take(out.passing);
            pieces.for_each(|piece| enter_out(&mut cable, out, bytes, piece, &mut passing));
            let dropped = if passing.is_empty() {
                0
            } else {
                self.send_now(out, bytes, passing.iter().copied())
            };
            passing.clear();
            *out.passing = passing;
            match out.runner.is_by_hand() {
                // What is due leaves in its order, with that of other ports.
                true => dropped,
                false => dropped + self.leave_from(&mut cable, out, until(out.runner.time())),
            }
        };
        let next = cable.out.next().filter(|_| out.limit < usize::MAX || !self.is_full());
        let is_sooner = |alarm| next.is_some_and(|next| (next.time, next.number) < alarm);
        if next.is_some() && self.alarm.is_none_or(is_sooner) {
            self.set_alarm(out.runner, next);
        }
        self.cable = Some(cable);
        dropped
    }

    /// Sends what is due OUT before `end`. Returns how many frames were dropped.
    pub fn leave(&mut self, out: &mut WayOut<'_>, end: Moment) -> usize {
        let Some(mut cable) = self.cable.take() else {
            return 0;
        };
        let dropped = self.leave_from(&mut cable, out, end);
        self.cable = Some(cable);
        dropped
    }

    /// Where nothing may be dropped, what finds the socket full stays.
    fn leave_from(&mut self, cable: &mut Cable, out: &mut WayOut<'_>, end: Moment) -> usize {
        let waits = out.limit == usize::MAX;
        if waits && self.is_full() {
            return 0;
        }
        let mut dropped = 0;
        let mut bytes = 0;
        cable.out.leave(end, true, |leaving| {
            dropped += self.send_now(out, leaving.wire, [Piece::of(leaving.wire)]);
            bytes += leaving.wire.len();
            bytes < MOST_AT_ONCE && !(waits && self.is_full())
        });
        dropped
    }

    /// Counts frames as dropped that are not sent here.
    pub fn drop_all(&mut self, runner: &Loop, frames: usize) -> usize {
        let tx = self.sender.try_lock();
        if tx.is_none() {
            self.sender.inbox.drop_all(frames as u64);
        }
        let is_left = tx.is_none();
        if let Some(mut tx) = self.or_want(tx) {
            if !is_left {
                tx.add_dropped(frames as u64);
            }
            let is_waiting = tx.is_stuck() || self.interest.contains(WRITABLE);
            self.let_go(runner, tx, is_waiting);
        }
        frames
    }

    /// Whether nothing gets through, since the cable is pulled.
    pub fn is_pulled(&self) -> bool {
        self.cable.as_ref().is_some_and(|cable| cable.is_pulled)
    }

    /// Whether the socket is full, or somebody else holds the sending part.
    pub fn is_full(&self) -> bool {
        self.is_held || self.interest.contains(WRITABLE)
    }

    /// Has the loop give the port a turn at a time.
    pub fn set_alarm(&mut self, runner: &Loop, moment: Option<Moment>) {
        let time = moment.map(|moment| (moment.time, moment.number));
        if self.alarm != time {
            runner.set_alarm(self.conn, time);
            self.alarm = time;
        }
    }

    /// An alarm that has passed is not set any more.
    pub fn note_alarm(&mut self, now: u64) {
        self.alarm = self.alarm.filter(|(time, _)| *time > now);
    }

    /// Locks the sending part, if nobody else holds it. What was left for it has been sent then. If
    /// somebody does, the port gets a turn when that is free.
    pub fn lock_tx(&mut self) -> Option<Guard<'static, Tx>> {
        let tx = self.sender.try_lock();
        self.or_want(tx)
    }

    /// The same, behind a first try.
    fn or_want(&mut self, tried: Option<Guard<'static, Tx>>) -> Option<Guard<'static, Tx>> {
        let sender = self.sender;
        let mut tx = tried.or_else(|| {
            sender.inbox.want();
            sender.try_lock()
        });
        self.is_held = tx.is_none();
        if let Some(tx) = &mut tx {
            sender.inbox.empty_into(tx);
        }
        tx
    }

    /// Lets the sending part go, and has the loop watch for room if the port is waiting for that.
    pub fn let_go(&mut self, runner: &Loop, tx: Guard<'static, Tx>, is_waiting: bool) {
        self.sender.inbox.tell_unwritten(tx.queued());
        self.is_short = tx.is_short();
        if is_waiting && tx.waits_for_time() {
            // What finds no room for long is lost, and nothing else may happen until then.
            runner.rest(self.conn);
        }
        drop(tx);
        self.watch(runner, WRITABLE, is_waiting);
    }

    /// Has the loop watch for something here, or no more. That fails only if the system lacks memory, or
    /// room in the sets of all its processes, and no descriptor tells when it has: the loop tries again.
    pub fn watch(&mut self, runner: &Loop, what: Interest, whether: bool) {
        self.interest.set(what, whether);
        if self.try_watch(runner).is_err() {
            runner.rest(self.conn);
        }
    }

    fn try_watch(&mut self, runner: &Loop) -> Result<()> {
        let watched = if self.is_short { self.interest - WRITABLE } else { self.interest };
        // Which of the two descriptors tells of room may have changed since.
        let is_apart = watched.contains(WRITABLE) && self.socket.room_apart().is_some();
        let second = if is_apart { WRITABLE } else { NOTHING };
        let first = watched - second;
        if self.watched.0 != first {
            runner.watch(self.socket.fd(), self.conn, self.watched.0, first)?;
            self.watched.0 = first;
        }
        if let Some(fd) = self.socket.second_fd().filter(|_| self.watched.1 != second) {
            runner.watch(fd, self.conn, self.watched.1, second)?;
            self.watched.1 = second;
        }
        Ok(())
    }
}

/// Has the frames of a piece enter OUT. Puts what passes behind `passing`.
fn enter_out(
    cable: &mut Cable,
    out: &mut WayOut<'_>,
    bytes: &[u8],
    piece: Piece,
    passing: &mut Vec<Piece>,
) {
    let time = *out.begun.get_or_insert_with(|| out.runner.time());
    // A link has room: the other side is not read while there is none.
    let room = if out.limit == usize::MAX { u64::MAX } else { cable.most };
    let wire = &bytes[piece.start..piece.end];
    if cable.out.treats_alike() {
        if cable.out.enter_run(time, wire, piece.frames, room, out.number) == Verdict::Passes {
            passing.push(piece);
        }
        return;
    }
    let mut passed = Piece::at(piece.start);
    let mut end = piece.start;
    for frame in Walk::over(wire) {
        end += PREFIX + frame.len();
        match cable.out.enter(time, frame, room, out.number) {
            Verdict::Passes => passed.add(frame.len(), 1),
            Verdict::Stays => {
                passing.extend((passed.frames > 0).then_some(passed));
                passed = Piece::at(end);
            }
        }
    }
    passing.extend((passed.frames > 0).then_some(passed));
}
