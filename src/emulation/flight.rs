//! Frames that are under way, in the order in which they leave.

use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, VecDeque};

use crate::emulation::store::Place;

/// A queue gives memory back when it needs less than a quarter of it, unless it is as small as this.
const SMALL: usize = 1024;

/// When something happens, in nanoseconds, and the number by which things take turns that happen at one
/// time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    pub time: u64,
    pub number: u64,
}

/// Frames that leave at one time, have numbers in a row, and lie one behind another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// When they leave, and the number of the first.
    pub due: Moment,
    pub place: Place,
    /// How many bytes they have with their prefixes, and how many frames there are.
    pub len: u32,
    pub frames: u32,
}

impl Run {
    /// Takes in a run that goes on where this one ends.
    #[inline]
    fn join(&mut self, next: &Run) -> bool {
        let due = Moment { number: self.due.number + u64::from(self.frames), ..self.due };
        let joins = next.due == due && next.place == self.place.behind(self.len);
        if joins {
            self.len += next.len;
            self.frames += next.frames;
        }
        joins
    }
}

impl Ord for Run {
    fn cmp(&self, other: &Run) -> Ordering {
        self.due.cmp(&other.due)
    }
}

impl PartialOrd for Run {
    fn partial_cmp(&self, other: &Run) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Frames that are under way. Those that leave behind all others that were there when they came are in a
/// queue, which is the cheap and common way; a heap has those that overtake some of these.
#[derive(Default)]
pub struct Flight {
    queue: VecDeque<Run>,
    heap: BinaryHeap<Reverse<Run>>,
    frames: u64,
}

impl Flight {
    /// How many frames there are.
    pub fn frames(&self) -> u64 {
        self.frames
    }

    #[inline]
    pub fn push(&mut self, run: Run) {
        self.frames += u64::from(run.frames);
        if let Some(last) = self.queue.back_mut() {
            if run.due < last.due {
                return self.heap.push(Reverse(run));
            }
            if last.join(&run) {
                return;
            }
        }
        self.queue.push_back(run);
    }

    /// When the first frame leaves.
    pub fn next(&self) -> Option<Moment> {
        self.first().map(|run| run.due)
    }

    fn first(&self) -> Option<&Run> {
        let overtaking = self.heap.peek().map(|Reverse(run)| run);
        self.queue.front().into_iter().chain(overtaking).min()
    }

    /// The frames that leave first, if they do so before `end`. With `together`, those that follow them in
    /// time and in memory are part of the run.
    pub fn before(&self, end: Moment, together: bool) -> Option<Run> {
        let mut run = *self.first().filter(|run| run.due < end)?;
        if together && self.queue.front() == Some(&run) {
            let overtaking = self.heap.peek().map_or(end, |Reverse(run)| run.due.min(end));
            for next in self.queue.iter().skip(1) {
                if next.due >= overtaking || next.place != run.place.behind(run.len) {
                    break;
                }
                run.len += next.len;
                run.frames += next.frames;
            }
        }
        Some(run)
    }

    /// Takes out a run that `before` has returned. Calls `each` with the first number and the count of the
    /// frames of each run of which it was made.
    pub fn remove(&mut self, run: &Run, mut each: impl FnMut(u64, u64)) {
        self.frames -= u64::from(run.frames);
        let mut left = run.frames;
        if self.queue.front().is_none_or(|front| front.due != run.due) {
            self.heap.pop();
            each(run.due.number, left.into());
            left = 0;
            if self.heap.capacity() > SMALL.max(4 * self.heap.len()) {
                self.heap.shrink_to(2 * self.heap.len());
            }
        }
        while left > 0 {
            let Some(front) = self.queue.pop_front() else {
                break;
            };
            left -= front.frames;
            each(front.due.number, front.frames.into());
        }
        shrink(&mut self.queue);
    }

    /// Takes everything out.
    pub fn clear(&mut self) {
        *self = Flight::default();
    }
}

/// Gives back memory that a queue no longer needs.
#[inline]
pub fn shrink<T>(queue: &mut VecDeque<T>) {
    if queue.capacity() > SMALL.max(4 * queue.len()) {
        queue.shrink_to((2 * queue.len()).max(SMALL / 2));
    }
}
