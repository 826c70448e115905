//! When a frame leaves, once it has been sent.

use crate::emulation::direction::Direction;
use crate::emulation::distribution::{Distribution, ONE_BITS};
use crate::emulation::quantity::Percent;
use crate::emulation::random::Purpose;
use crate::emulation::spec::{Delay, Jitter, Reorder};

impl Direction {
    /// When a frame leaves of which the last bit is sent at `sent`.
    #[inline]
    pub(super) fn due(&mut self, sent: u64) -> u64 {
        let is_early = self.skips_delay();
        let delay = if is_early { 0 } else { self.delay() };
        let due = sent.saturating_add(delay);
        let due = if self.spec.reorder.is_none() { due.max(self.last) } else { due };
        if !is_early {
            self.last = self.last.max(due);
        }
        due
    }

    /// Whether the next frame is chosen to skip the delay.
    #[inline]
    fn skips_delay(&mut self) -> bool {
        let Some(Reorder { chance: Some(chance), gap }) = &self.spec.reorder else {
            return false;
        };
        let stream = self.streams.of(Purpose::Reorder);
        let is_early = self.since_early >= gap.unwrap_or(1) - 1 && chance.falls(stream);
        self.since_early = if is_early { 0 } else { self.since_early + 1 };
        is_early
    }

    /// How long the next frame is delayed.
    #[inline]
    fn delay(&mut self) -> u64 {
        let Some(Delay { time, jitter }) = &self.spec.delay else {
            return 0;
        };
        let Some(Jitter { time: jitter, correlation, distribution }) =
            jitter.as_ref().filter(|jitter| jitter.time > 0)
        else {
            return *time;
        };
        let again = correlation.map_or(0, Percent::threshold);
        let random = self.streams.of(Purpose::Jitter).value(again);
        let distribution = distribution.unwrap_or(Distribution::Uniform);
        spread(*time, *jitter, distribution.quantile(random))
    }

    pub(super) fn jitter(&self) -> Option<&Jitter> {
        self.spec.delay.as_ref()?.jitter.as_ref().filter(|jitter| jitter.time > 0)
    }

    /// The soonest that a frame may leave of which the last bit is sent at `sent`.
    pub(super) fn soonest(&self, sent: u64) -> u64 {
        let Some(reorder) = &self.spec.reorder else {
            return sent.saturating_add(self.least_delay()).max(self.last);
        };
        if reorder.chance.is_some() { sent } else { sent.saturating_add(self.least_delay()) }
    }

    fn least_delay(&self) -> u64 {
        let time = self.spec.delay.as_ref().map_or(0, |delay| delay.time);
        self.jitter().map_or(time, |jitter| {
            let distribution = jitter.distribution.unwrap_or(Distribution::Uniform);
            spread(time, jitter.time, distribution.least())
        })
    }
}

/// A delay with its random part, never less than 0.
fn spread(time: u64, jitter: u64, quantile: i64) -> u64 {
    time.saturating_add_signed((jitter as i64 * quantile) >> ONE_BITS)
}
