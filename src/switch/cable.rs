//! What is set on the cable of a connection: what becomes of its frames each way, and whether it is pulled.
//! Most connections have nothing of it.

use crate::emulation::direction::Direction;
use crate::emulation::flight::Moment;
use crate::emulation::random::Side;
use crate::options::Options;
use crate::sys::descriptor::random;

pub struct Cable {
    /// From the peer into the switch, and from there to the peer.
    pub inn: Direction,
    pub out: Direction,
    /// How many bytes of frames either holds at most.
    pub most: u64,
    /// Whether nothing gets through.
    pub is_pulled: bool,
    /// Whether the connection stays when the other side of its link has ended.
    pub outlives: bool,
    /// Whether a TAP has lost its carrier by that.
    pub is_dark: bool,
}

/// How many bytes leave a direction in one turn, or little more: about as many as one read brings. What is due
/// beyond that leaves in the next, so that others on the loop have their turns.
pub const MOST_AT_ONCE: usize = 128 << 10;

/// What is due by a time, at that time included.
pub fn until(time: u64) -> Moment {
    Moment { time, number: u64::MAX }
}

impl Cable {
    /// A cable that does nothing yet but what the options say. Both directions have one seed, for texts
    /// without one.
    pub fn new(options: &Options) -> Box<Cable> {
        let seed = u64::from_ne_bytes(random());
        let mut cable = Cable {
            inn: Direction::new(Side::In, seed),
            out: Direction::new(Side::Out, seed),
            most: 0,
            is_pulled: false,
            outlives: false,
            is_dark: false,
        };
        cable.configure(options);
        Box::new(cable)
    }

    /// Whether options ask for a cable that does something.
    pub fn is_asked_for(options: &Options) -> bool {
        options.is_pulled() || options.outlives()
    }

    pub fn configure(&mut self, options: &Options) {
        self.most = options.flight_bytes();
        (self.is_pulled, self.outlives) = (options.is_pulled(), options.outlives());
    }

    pub fn direction(&mut self, side: Side) -> &mut Direction {
        match side {
            Side::In => &mut self.inn,
            Side::Out => &mut self.out,
        }
    }

    /// The connection has been plugged in, when it is `now` there.
    pub fn plug_in(&mut self, now: u64) {
        self.inn.plug_in(now);
        self.out.plug_in(now);
    }

    /// Discards what is in flight.
    pub fn discard(&mut self) {
        self.inn.discard();
        self.out.discard();
    }
}
