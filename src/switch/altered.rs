//! Forwarding from and to ports whose cable is altered: frames are lost, held and altered there, and leave
//! when they are due. Ports without that have no part in this.

use std::time::Instant;

use crate::capture::interface::Occasion;
use crate::emulation::direction::enter::Verdict;
use crate::emulation::flight::Moment;
use crate::frame::{self, Alike, PREFIX, Run, Walk};
use crate::rx::counts::RxCounts;
use crate::switch::cable::{Cable, MOST_AT_ONCE, until};
use crate::switch::sorter::{Piece, Sorter};
use crate::switch::{Inside, Kind};

impl Inside {
    /// Takes in the whole frames at the front of `bytes`, which came in at port `from`. Returns how many bytes
    /// they have.
    pub fn take_in(
        &mut self,
        from: usize,
        bytes: &[u8],
        counts: &RxCounts,
        sorter: &mut Sorter,
        now: Instant,
    ) -> usize {
        sorter.sending.begun = None;
        let is_altered = self.is_altered(from);
        if is_altered && self.is_dead(from) {
            return Inside::refuse(bytes, counts);
        }
        if !self.probes.is_empty() {
            self.probes.record_in(Occasion::of_forwarding(Some(self.runner)), bytes);
        }
        let run = if !is_altered {
            self.forward(from, bytes, sorter, now)
        } else {
            self.take_in_altered(from, bytes, sorter, now)
        };
        counts.run(&run);
        run.end
    }

    /// Takes the whole frames at the front of `bytes`, which are to go nowhere. Returns how many bytes they
    /// have.
    pub fn refuse(bytes: &[u8], counts: &RxCounts) -> usize {
        let run = Run::over(bytes, usize::MAX, |_, _| {});
        counts.refused.add(run.frames as u64);
        counts.run(&run);
        run.end
    }

    fn take_in_altered(
        &mut self,
        from: usize,
        bytes: &[u8],
        sorter: &mut Sorter,
        now: Instant,
    ) -> Run {
        let (time, is_by_hand) = (self.runner.time(), self.runner.is_by_hand());
        if !is_by_hand {
            self.leave_in(from, sorter, now, until(time));
        }
        sorter.sending.begun = Some(time);
        let Some(mut cable) = self.ports[from].cable.take() else {
            return Run::default();
        };
        let run = match cable.inn.is_idle() {
            true => self.forward(from, bytes, sorter, now),
            false => self.enter_in(&mut cable, from, bytes, sorter, now),
        };
        self.ports[from].cable = Some(cable);
        if !is_by_hand {
            // Copies, and what was altered, are due at once.
            self.leave_in(from, sorter, now, until(time));
        }
        run
    }

    /// Has frames enter IN, and forwards those that pass.
    fn enter_in(
        &mut self,
        cable: &mut Cable,
        from: usize,
        bytes: &[u8],
        sorter: &mut Sorter,
        now: Instant,
    ) -> Run {
        let time = sorter.sending.begun.unwrap_or(0);
        if cable.inn.treats_alike() {
            let run = Run::over(bytes, usize::MAX, |_, _| {});
            if run.runts == 0 {
                let (wire, number) = (&bytes[..run.end], &mut self.number);
                let verdict = cable.inn.enter_run(time, wire, run.frames, u64::MAX, number);
                if verdict == Verdict::Passes {
                    self.forward(from, wire, sorter, now);
                }
                return run;
            }
        }
        let mut course = self.course(from, sorter, now);
        let (mut total, mut piece) = (Run::default(), Piece::at(0));
        let mut walk = Walk::over(bytes);
        while let Some(frame) = walk.next() {
            let end = bytes.len() - walk.rest().len();
            let is_runt = frame.len() < frame::MIN;
            if is_runt {
                total.runts += 1;
            } else {
                total.frames += 1;
                total.bytes += frame.len();
            }
            if !is_runt
                && cable.inn.enter(time, frame, u64::MAX, &mut self.number) == Verdict::Passes
            {
                let bytes_of = &bytes[end - PREFIX - frame.len()..end];
                let alike = Alike { bytes: bytes_of, len: frame.len(), count: 1 };
                piece = self.pass(&alike, &mut course, piece, bytes, sorter);
            } else {
                self.dispatch(&course, piece, bytes, sorter);
                piece = Piece::at(end);
            }
        }
        self.dispatch(&course, piece, bytes, sorter);
        self.send_sorted(bytes, sorter);
        total.end = bytes.len() - walk.rest().len();
        total
    }

    pub fn is_altered(&self, id: usize) -> bool {
        self.ports[id].cable.is_some()
    }

    /// Has all leave that is due at a port.
    pub fn settle(&mut self, id: usize, sorter: &mut Sorter, now: Instant) {
        if !self.is_altered(id) {
            return;
        }
        if self.is_loose(id) {
            self.lose_other_side(id);
        }
        let time = self.runner.time();
        self.ports[id].note_alarm(time);
        self.leave_out(id, sorter, until(time));
        self.leave_in(id, sorter, now, until(time));
        if let Some(other) = self.other_side(id) {
            self.resume(other);
        }
    }

    /// Goes on with a port that the other side of its link has held up. It gets a turn of its own if there is
    /// something to read, and when something is due: while it was held up, no alarm was set.
    pub fn resume(&mut self, id: usize) {
        if self.runner.is_by_hand() {
            return self.runner.look(self.ports[id].conn);
        }
        self.watch_to_read(id);
        self.set_alarm(id);
    }

    /// What was for the other side of a link that has ended is discarded.
    pub fn lose_other_side(&mut self, id: usize) {
        if let Some(cable) = &mut self.ports[id].cable {
            cable.inn.discard();
        }
        self.show_carrier(id);
    }

    fn leave_out(&mut self, id: usize, sorter: &mut Sorter, end: Moment) {
        let limit = self.limit();
        let mut out = sorter.sending.way_out(self.runner, limit, &mut self.number);
        let dropped = self.ports[id].leave(&mut out, end);
        self.counts.dropped += dropped as u64;
    }

    /// Has that leave a port which was due there first, at that moment.
    pub fn leave_first(&mut self, id: usize, sorter: &mut Sorter, now: Instant, due: Moment) {
        let Some(cable) = &self.ports[id].cable else {
            return;
        };
        let is_in = cable.inn.next() == Some(due);
        self.ports[id].note_alarm(u64::MAX);
        let end = Moment { number: due.number + 1, ..due };
        if is_in {
            self.leave_in(id, sorter, now, end);
        } else {
            self.leave_out(id, sorter, end);
        }
    }

    /// Forwards what is due IN before `end`, as much as may leave at once, and as long as a link's other side
    /// takes it.
    fn leave_in(&mut self, id: usize, sorter: &mut Sorter, now: Instant, end: Moment) {
        if self.holds_in(id) {
            return;
        }
        // Their times matter where they enter OUT, and else they are sent together.
        let together =
            self.ports.iter().all(|(other, outlet)| other == id || outlet.cable.is_none());
        let Some(mut cable) = self.ports[id].cable.take() else {
            return;
        };
        let mut bytes = 0;
        cable.inn.leave(end, together, |leaving| {
            sorter.sending.begun = Some(leaving.due.time);
            self.forward(id, leaving.wire, sorter, now);
            bytes += leaving.wire.len();
            bytes < MOST_AT_ONCE && !self.holds_in(id)
        });
        self.ports[id].cable = Some(cable);
    }

    /// Whether what is due IN stays: at a link whose other side is full, or gone. What goes on to OUT there
    /// is never held up.
    fn holds_in(&self, id: usize) -> bool {
        if !self.is_link() {
            return false;
        }
        self.other_side(id).is_none_or(|other| {
            let other = &self.ports[other];
            let passes = other.cable.as_ref().is_none_or(|c| !c.is_pulled && c.out.is_idle());
            passes && other.is_full()
        })
    }

    /// Has the loop give a port a turn when something is due there.
    pub fn set_alarm(&mut self, id: usize) {
        if !self.is_altered(id) {
            return;
        }
        let (holds_in, holds_out) = (self.holds_in(id), self.is_link() && self.ports[id].is_full());
        let outlet = &mut self.ports[id];
        let next = outlet.cable.as_ref().and_then(|cable| {
            let inn = cable.inn.next().filter(|_| !holds_in);
            let out = cable.out.next().filter(|_| !holds_out);
            inn.into_iter().chain(out).min()
        });
        outlet.set_alarm(self.runner, next);
    }

    /// The same for both sides of a link, of which one may hold up the other.
    pub fn set_alarms(&mut self, id: usize) {
        self.set_alarm(id);
        if let Some(other) = self.other_side(id) {
            self.set_alarm(other);
        }
    }

    /// Whether a port's direction holds as much as it may: IN, or OUT on a link.
    pub fn is_in_full(&self, id: usize) -> bool {
        self.ports[id].cable.as_ref().is_some_and(|cable| cable.inn.held_bytes() >= cable.most)
    }

    /// Whether a link's port takes no more for now.
    pub fn is_out_full(&self, id: usize) -> bool {
        let outlet = &self.ports[id];
        match &outlet.cable {
            None => outlet.is_full(),
            Some(cable) if cable.is_pulled => false,
            Some(cable) if cable.out.is_idle() => outlet.is_full(),
            // What is under way waits in there when the socket is full.
            Some(cable) => outlet.is_full() || cable.out.held_bytes() >= cable.most,
        }
    }

    /// Whether nothing gets through at a port: its cable is pulled, or is linked to nothing.
    fn is_dead(&self, id: usize) -> bool {
        self.ports[id].cable.as_ref().is_some_and(|cable| cable.is_pulled) || self.is_loose(id)
    }

    /// Whether the other side of a link has ended, and this one stays.
    pub fn is_loose(&self, id: usize) -> bool {
        self.ports.len() < 2
            && matches!(self.kind, Kind::Link { is_whole: true })
            && self.ports[id].cable.as_ref().is_some_and(|cable| cable.outlives)
    }

    /// Whether a port is done for: what its connection, or the other side that has ended, had sent has gone
    /// where it was to.
    pub fn has_arrived(&self, id: usize) -> bool {
        self.ports[id].cable.as_ref().is_none_or(|cable| match self.is_cut(id) {
            true => cable.out.held_bytes() == 0,
            false => cable.inn.held_bytes() == 0,
        })
    }

    /// Whether a port is done for, and everything that concerns it is written.
    pub fn is_over(&mut self, id: usize) -> bool {
        self.has_arrived(id)
            && match self.is_cut(id) {
                true => self.write_queued(id),
                false => self.outlet(id).end().is_some(),
            }
    }

    /// A cable has been pulled, or may have been.
    pub fn look_at_plug(&mut self, id: usize) {
        if let Some(cable) = self.ports[id].cable.as_mut().filter(|cable| cable.is_pulled) {
            cable.discard();
            self.forget(id);
        }
        self.show_carrier(id);
        if let Some(other) = self.other_side(id) {
            // It may have been linked to nothing before.
            self.show_carrier(other);
        }
    }

    /// Has a TAP show whether something gets through. This is the one system call that others than the loop
    /// make while they hold the switch: the loop makes it too, and the last one counts.
    fn show_carrier(&mut self, id: usize) {
        let is_dark = self.is_dead(id);
        let outlet = &mut self.ports[id];
        if let Some(cable) = outlet.cable.as_mut().filter(|cable| cable.is_dark != is_dark) {
            cable.is_dark = is_dark;
            outlet.socket.set_carrier(!is_dark);
        }
    }
}
