//! Frames leave when they are due.

use crate::emulation::direction::Direction;
use crate::emulation::flight::Moment;

/// Frames that leave, in wire format.
pub struct Leaving<'a> {
    pub wire: &'a [u8],
    pub frames: usize,
    /// When the first of them leaves, and its number.
    pub due: Moment,
}

impl Direction {
    /// Has all leave that is due before `end`, in order, until `each` returns false: what it was given has
    /// left then, too. Each call gets frames that leave at one time, or, with `together`, all that lie one
    /// behind another.
    pub fn leave(
        &mut self,
        end: Moment,
        together: bool,
        mut each: impl FnMut(&Leaving<'_>) -> bool,
    ) {
        self.advance(end.time);
        let Direction { flight, store, highest, tally, .. } = self;
        while let Some(run) = flight.before(end, together) {
            let wire = store.bytes(run.place, run.len);
            let goes_on = each(&Leaving { wire, frames: run.frames as usize, due: run.due });
            flight.remove(&run, |number, frames| {
                if number < *highest {
                    tally.reordered += frames;
                } else {
                    *highest = number + frames;
                }
            });
            store.release(run.place, run.len);
            if !goes_on {
                return;
            }
        }
    }
}
