//! The stream decoder: bytes are sent to a connection in pieces and received in every way, and must give
//! the frames that the reference decoder finds.
//!
//! The first byte of an input says how its end is received. Operations follow: see [`plan`].

#![no_main]

use std::ffi::{c_int, c_void};
use std::os::fd::OwnedFd;
use std::sync::{Condvar, Mutex};
use std::{ptr, slice};

use libc::iovec;
use libfuzzer_sys::fuzz_target;
use qnet::capi::handles::qnet_conn;
use qnet::capi::{end, receive};
use qnet_fuzz::{
    AGAIN, FRAME_MAX, FRAME_MIN, FRAME_SIZE, Input, OK, Received, decode, pair, push_frame,
    received, send, shut, wait,
};

/// The most that one input sends: more than two of the library's buffers.
const STREAM: usize = 300 << 10;

/// Sizes of callers' buffers.
const CAPS: [usize; 10] = [0, 1, 14, 64, 1514, 9000, 40_000, FRAME_MAX, FRAME_MAX + 4, LARGEST];
const LARGEST: usize = 160 << 10;

#[derive(Clone, Copy)]
enum Way {
    Recv(usize),
    Batch(usize),
    Packed(usize),
    Handler,
    BatchHandler,
}

/// The ways that can receive every frame.
const WAYS: [Way; 5] =
    [Way::Recv(FRAME_MAX), Way::Batch(64), Way::Packed(LARGEST), Way::Handler, Way::BatchHandler];

enum Step {
    /// Send the stream up to this offset.
    Send(usize),
    Receive(Way),
    Poll,
    Reason,
}

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let last = usize::from(input.byte().unwrap_or(0));
    let (stream, steps) = plan(&mut input);
    let (conn, peer) = pair();
    let sink = Sink::default();
    let mut run = Run::new(&stream, conn, &peer, &sink);
    for step in &steps {
        run.step(step);
    }
    run.send_up_to(stream.len());
    shut(&peer);
    run.receive_end(WAYS[last % WAYS.len()]);
    drop(peer);
    // SAFETY: the library checks handles itself.
    assert_eq!(unsafe { end::qnet_close(conn) }, OK);
});

/// The stream that an input stands for, and the steps in which it is sent and received.
fn plan(input: &mut Input) -> (Vec<u8>, Vec<Step>) {
    let (mut stream, mut steps) = (Vec::new(), Vec::new());
    while let Some((operation, n)) = input.operation()
        && stream.len() < STREAM
    {
        match operation {
            0 => stream.extend_from_slice(input.bytes(n + 1)),
            // A frame, or a length that no frame has.
            1 => match input.number() + n % 2 * 4097 {
                len @ ..=FRAME_MAX => push_frame(&mut stream, &[], len, n),
                len => stream.extend_from_slice(&(len as u32).to_be_bytes()),
            },
            // A run of frames of one length.
            2 => {
                let len = input.byte().unwrap_or(0).into();
                (0..(n + 1) * 8).for_each(|tag| push_frame(&mut stream, &[], len, tag));
            }
            3 => steps.push(Step::Send(stream.len().saturating_sub(n))),
            4 => steps.push(Step::Receive(Way::Recv(CAPS[n % CAPS.len()]))),
            5 => steps.push(Step::Receive(Way::Batch(if n < 31 { n + 1 } else { 1 << 20 }))),
            6 => steps.push(Step::Receive(Way::Packed(CAPS[n % CAPS.len()]))),
            _ => steps.push(match n % 4 {
                0 => Step::Receive(Way::Handler),
                1 => Step::Receive(Way::BatchHandler),
                2 => Step::Poll,
                _ => Step::Reason,
            }),
        }
    }
    (stream, steps)
}

/// A connection, and what is to be received from it.
struct Run<'a> {
    conn: *mut qnet_conn,
    peer: &'a OwnedFd,
    /// Where handlers put frames: it outlives the connection.
    sink: &'a Sink,
    stream: &'a [u8],
    /// The frames to be delivered, each with the offset of its end in the stream.
    frames: Vec<(usize, &'a [u8])>,
    runts: usize,
    /// The reason of the end, and the offset up to which the stream has to be sent for it to show.
    end: c_int,
    end_at: usize,
    sent: usize,
    taken: usize,
    /// Whether the peer has left, and whether the end was reported.
    is_left: bool,
    is_reported: bool,
    buf: Vec<u8>,
}

impl<'a> Run<'a> {
    fn new(stream: &'a [u8], conn: *mut qnet_conn, peer: &'a OwnedFd, sink: &'a Sink) -> Run<'a> {
        let decoded = decode(stream);
        let mut at = 0;
        let ends = decoded.frames.iter().map(|frame| {
            at += 4 + frame.len();
            (at, *frame)
        });
        let (frames, runts): (Vec<_>, Vec<_>) = ends.partition(|(_, f)| f.len() >= FRAME_MIN);
        Run {
            conn,
            peer,
            sink,
            stream,
            frames,
            runts: runts.len(),
            end: decoded.end(),
            end_at: if decoded.is_broken { at + 4 } else { usize::MAX },
            sent: 0,
            taken: 0,
            is_left: false,
            is_reported: false,
            buf: vec![0; LARGEST],
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Send(end) => self.send_up_to(*end),
            Step::Receive(way) => self.receive(*way),
            Step::Poll => self.poll(),
            Step::Reason => self.reason(),
        }
    }

    /// How many frames there are to receive now.
    fn available(&self) -> usize {
        self.frames.partition_point(|(end, _)| *end <= self.sent) - self.taken
    }

    /// Whether the end is all that there is to receive.
    fn is_over(&self) -> bool {
        self.available() == 0 && (self.is_left || self.sent >= self.end_at)
    }

    fn next_len(&self) -> Option<usize> {
        (self.available() > 0).then(|| self.frames[self.taken].1.len())
    }

    /// Takes what was received, if these are the next frames.
    fn take<'f>(&mut self, frames: impl IntoIterator<Item = &'f [u8]>) {
        for frame in frames {
            assert!(self.available() > 0, "a frame that was not sent");
            assert!(self.frames[self.taken].1 == frame, "frame {} is another", self.taken);
            self.taken += 1;
        }
    }

    /// Checks the code that a call returned instead of a frame.
    fn no_frame(&mut self, code: c_int) {
        assert_eq!(self.available(), 0, "{code}, though a frame is there");
        assert_eq!(code, if self.is_over() { self.end } else { AGAIN });
        self.is_reported |= code != AGAIN;
    }

    fn send_up_to(&mut self, end: usize) {
        while self.sent < end {
            match send(self.peer, &self.stream[self.sent..end]) {
                Some(0) => self.recv_packed(LARGEST),
                Some(n) => self.sent += n,
                None => {
                    assert!(self.is_reported, "the connection has ended by itself");
                    self.sent = end;
                }
            }
        }
    }

    fn receive(&mut self, way: Way) {
        match way {
            Way::Recv(cap) => self.recv(cap),
            Way::Batch(count) => self.recv_batch(count),
            Way::Packed(cap) => self.recv_packed(cap),
            Way::Handler => self.handle(false),
            Way::BatchHandler => self.handle(true),
        }
    }

    fn recv(&mut self, cap: usize) {
        let buf = self.buf.as_mut_ptr();
        // SAFETY: the buffer has room.
        let got = unsafe { receive::qnet_recv(self.conn, buf.cast(), cap, 0) };
        match self.next_len() {
            None => self.no_frame(got),
            Some(len) if cap == 0 => assert_eq!(got, len as c_int),
            Some(len) if cap < len => assert_eq!(got, FRAME_SIZE),
            Some(len) => {
                assert_eq!(got, len as c_int);
                // SAFETY: nobody writes there meanwhile.
                self.take([unsafe { slice::from_raw_parts(buf, len) }]);
            }
        }
    }

    fn recv_batch(&mut self, count: usize) {
        let available = self.available();
        // There is room for one more frame than can come.
        let mut lent = vec![EMPTY; count.min(available + 1)];
        // SAFETY: an iovec is laid out as a qnet_frame.
        let got =
            unsafe { receive::qnet_recv_batch(self.conn, lent.as_mut_ptr().cast(), count, 0) };
        if available == 0 {
            return self.no_frame(got);
        }
        let got = usize::try_from(got).expect("frames are there");
        let most = available.min(count);
        assert!((1..=most).contains(&got), "{got} of {most}");
        // Frames that are left must keep the descriptor readable, for those who wait for it.
        assert!(got == most || is_readable(self.conn), "{got} of {most}");
        if count.is_multiple_of(2) {
            // Polling ends no loan.
            self.taken += got;
            self.poll();
            self.taken -= got;
        }
        // SAFETY: the frames are lent until the next receive.
        self.take(lent[..got].iter().map(|frame| unsafe { bytes_of(frame) }));
    }

    fn recv_packed(&mut self, cap: usize) {
        let buf = self.buf.as_mut_ptr();
        // SAFETY: the buffer has room.
        let got = unsafe { receive::qnet_recv_packed(self.conn, buf.cast(), cap, 0) };
        match self.next_len() {
            None => self.no_frame(got),
            Some(len) if cap < 4 + len => assert_eq!(got, FRAME_SIZE),
            Some(_) => {
                let got = usize::try_from(got).expect("a frame is there");
                // SAFETY: nobody writes there meanwhile.
                let packed = decode(unsafe { slice::from_raw_parts(buf, got) });
                assert!(packed.rest.is_empty() && !packed.frames.is_empty());
                self.take(packed.frames);
            }
        }
    }

    /// Receives everything that is there with a handler, and then removes the handler.
    fn handle(&mut self, in_batches: bool) {
        if self.is_reported {
            return;
        }
        let user = ptr::from_ref(self.sink).cast_mut().cast();
        // SAFETY: the sink outlives the connection.
        let code = unsafe {
            match in_batches {
                false => receive::qnet_set_handler(self.conn, Some(take_one), user),
                true => receive::qnet_set_batch_handler(self.conn, Some(take_batch), user),
            }
        };
        assert_eq!(code, OK);
        let frames = self.sink.wait_for(self.available());
        self.take(frames.iter().map(Vec::as_slice));
        let code = match self.is_over() {
            // SAFETY: no handler is set, and `user` is not used.
            false => unsafe { receive::qnet_set_handler(self.conn, None, ptr::null_mut()) },
            true => wait(self.conn),
        };
        assert_eq!(code, OK);
        self.is_reported = self.is_over();
    }

    fn poll(&mut self) {
        let mut ready = 2;
        // SAFETY: there is one handle, and room for one answer.
        let count = unsafe { receive::qnet_poll(&self.conn, &mut ready, 1, 0) };
        let has_something = self.available() > 0 || self.is_over();
        assert_eq!((count, ready), (has_something.into(), has_something.into()));
    }

    /// Checks the reason for the end, which is known early only if the stream is broken.
    fn reason(&mut self) {
        // SAFETY: the library checks handles itself.
        match unsafe { end::qnet_close_reason(self.conn) } {
            OK => assert!(!self.is_reported, "the end is forgotten"),
            code => self.no_frame(code),
        }
    }

    /// Receives the rest and the end, after the peer has left.
    fn receive_end(&mut self, way: Way) {
        self.is_left = true;
        while !self.is_reported {
            self.receive(way);
        }
        self.reason();
        self.recv(0);
        assert_eq!(self.taken, self.frames.len());
        let bytes = self.frames.iter().map(|(_, frame)| frame.len()).sum();
        let counts = Received { frames: self.taken, bytes, runts: self.runts };
        assert_eq!(received(self.conn), counts);
    }
}

const EMPTY: iovec = iovec { iov_base: ptr::null_mut(), iov_len: 0 };

/// # Safety
/// The frame's bytes must be valid while they are used.
unsafe fn bytes_of(frame: &iovec) -> &[u8] {
    // SAFETY: the caller promises that.
    unsafe { slice::from_raw_parts(frame.iov_base.cast(), frame.iov_len) }
}

fn is_readable(conn: *mut qnet_conn) -> bool {
    // SAFETY: the library checks handles itself, and there is one descriptor.
    unsafe {
        let mut fd = libc::pollfd { fd: receive::qnet_fd(conn), events: libc::POLLIN, revents: 0 };
        libc::poll(&mut fd, 1, 0) == 1
    }
}

/// The frames that handlers were called with.
#[derive(Default)]
struct Sink {
    frames: Mutex<Vec<Vec<u8>>>,
    more: Condvar,
}

impl Sink {
    fn add(&self, frames: &[iovec]) {
        // SAFETY: the frames are valid during the handler's call.
        let frames = frames.iter().map(|frame| unsafe { bytes_of(frame) }.to_vec());
        self.frames.lock().expect("no panic").extend(frames);
        self.more.notify_one();
    }

    fn wait_for(&self, count: usize) -> Vec<Vec<u8>> {
        let frames = self.frames.lock().expect("no panic");
        let is_less = |frames: &mut Vec<_>| frames.len() < count;
        std::mem::take(&mut *self.more.wait_while(frames, is_less).expect("no panic"))
    }
}

/// # Safety
/// The arguments are what the library gives a frame handler.
unsafe extern "C-unwind" fn take_one(user: *mut c_void, frame: *const u8, len: usize) {
    let frame = iovec { iov_base: frame.cast_mut().cast(), iov_len: len };
    // SAFETY: `user` is the sink.
    unsafe { &*user.cast::<Sink>() }.add(&[frame]);
}

/// # Safety
/// The arguments are what the library gives a batch handler; `F` is its type of frame.
unsafe extern "C-unwind" fn take_batch<F>(user: *mut c_void, frames: *const F, count: usize) {
    // SAFETY: `user` is the sink, and a frame is laid out as an iovec.
    unsafe { (*user.cast::<Sink>()).add(slice::from_raw_parts(frames.cast(), count)) };
}
