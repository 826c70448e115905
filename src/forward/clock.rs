//! A clock that the program moves, and what an advance of it works with. What an advance does is in `advance`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::conn::Conn;
use crate::error::{Error, Result};
use crate::forward::turn::Work;
use crate::runtime::event_loop::Loop;
use crate::runtime::handle::{NONE, Object, Ref, Table, Token};
use crate::runtime::lock::{Guard, Guarded, Lock};
use crate::runtime::wake::Wake;
use crate::switch::sorter::Written;

/// How many clocks a process may have.
const MOST: usize = 1 << 16;

static CLOCKS: Table<Clock, MOST> = Table::new();

/// This process's clocks.
pub fn table() -> &'static Table<Clock, MOST> {
    &CLOCKS
}

pub struct Clock {
    state: Lock<State>,
    /// What has its links and hubs, and shows its time. No thread gives it turns.
    runner: Loop,
}

#[derive(Default)]
pub struct State {
    token: Token,
    /// What an advance works with, which takes it out while it does.
    pub tour: Option<Box<Tour>>,
    /// Whether the last advance stopped short: then there is something to do at once.
    pub is_behind: bool,
    /// Raised when an advance is over.
    pub wake: Arc<Wake>,
}

/// What an advance works with, and leaves to the next.
pub struct Tour {
    pub work: Work,
    /// The number that the next frame takes which is held anywhere on this clock.
    pub number: u64,
    /// How many bytes were taken in from each connection at the present instant, by this advance.
    pub taken: BTreeMap<Token, u64>,
    /// The connections whose full sockets hold up the clock.
    pub stuck: VecDeque<Ref<Conn>>,
    /// Those that have ended, and whose close handlers may have to be called.
    pub ended: VecDeque<Ref<Conn>>,
}

impl Default for Tour {
    fn default() -> Tour {
        let mut work = Work::default();
        work.sorter.sending.written = Some(Written::default());
        let (taken, stuck, ended) = Default::default();
        Tour { work, number: 0, taken, stuck, ended }
    }
}

impl Default for Clock {
    fn default() -> Clock {
        Clock { state: Lock::default(), runner: Loop::by_hand() }
    }
}

impl Guarded for State {}

impl Object for Clock {
    const KIND: u64 = 0;
    type State = State;

    fn lock(&self) -> Guard<'_, State> {
        self.state.lock()
    }

    fn is_of(state: &State, token: Token) -> bool {
        state.token == token
    }
}

impl Clock {
    pub fn runner(&'static self) -> &'static Loop {
        &self.runner
    }
}

pub fn new() -> Result<Ref<Clock>> {
    let clock = table().take()?;
    clock.slot.runner.start_over();
    let tour = Some(Box::default());
    *clock.slot.state.lock() = State { token: clock.token, tour, ..State::default() };
    Ok(clock)
}

/// What time it is, and when something is due.
pub fn next(clock: Ref<Clock>) -> Result<(i64, i64)> {
    let is_behind = clock.state()?.is_behind;
    let now = clock.slot.runner.time();
    let due = clock.slot.runner.next_alarm().map_or(u64::MAX, |(time, _)| time.max(now));
    let next = if is_behind { now } else { due };
    Ok((now as i64, i64::try_from(next).unwrap_or(i64::MAX)))
}

pub fn close(clock: Ref<Clock>) -> Result<()> {
    let mut state = clock.state()?;
    if clock.slot.runner.is_used() {
        return Err(Error::Busy("a hub or a link is on the clock"));
    }
    if state.tour.is_none() {
        return Err(Error::Busy("the clock is being advanced"));
    }
    *state = State { token: NONE, ..State::default() };
    drop(state);
    table().give_back(clock.token);
    Ok(())
}
