//! A gRPC connection for one caller with one request under way: HTTP/2 in its plainest form over a blocking socket.
//!
//! It is here because client and server share the processors of a measurement: what the client uses, the server lacks.
//! Requests are encoded once, headers are a few bytes (the peer's table has them from the first request on), a request is
//! one write. What it deliberately does not do: TLS, several requests at once, reading header blocks (a gRPC error comes
//! without a message, and that is how it is noticed).

use std::{
    io::{self, Read as _, Write as _},
    net::TcpStream,
};

pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A connection.
pub struct Connection {
    stream: TcpStream,
    path: String,
    authority: String,
    /// Stream of the last request; odd numbers.
    last_stream: u32,
    /// What was read and not yet looked at: `received[seen..filled]`; the rest is room.
    received: Vec<u8>,
    seen: usize,
    filled: usize,
    /// What is to be sent.
    sending: Vec<u8>,
    /// What the peer allows.
    frame_bytes_max: usize,
    stream_window: i64,
    connection_window: i64,
    /// Bytes of answers since the peer was last told that there is room.
    taken: u32,
}

/// A frame's place in what was received.
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    start: usize,
    end: usize,
}

impl Connection {
    /// Connects to `host:port` for calls of one method, such as `/package.Service/Method`.
    pub fn open(authority: &str, path: &str) -> Result<Self, Failure> {
        let mut stream = TcpStream::connect(authority)?;
        stream.set_nodelay(true)?;
        let mut hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        frame(&mut hello, SETTINGS, 0, 0, &[&[0, 4][..], &WINDOW_BYTES.to_be_bytes()].concat());
        frame(&mut hello, WINDOW_UPDATE, 0, 0, &(WINDOW_BYTES - DEFAULT_WINDOW_BYTES).to_be_bytes());
        stream.write_all(&hello)?;
        let mut connection = Self {
            stream,
            path: path.to_owned(),
            authority: authority.to_owned(),
            last_stream: 0,
            received: vec![0; READ_BYTES],
            seen: 0,
            filled: 0,
            sending: Vec::new(),
            frame_bytes_max: 16_384,
            stream_window: i64::from(DEFAULT_WINDOW_BYTES),
            connection_window: i64::from(DEFAULT_WINDOW_BYTES),
            taken: 0,
        };
        // The peer's settings come first.
        while !connection.control_frame()? {}
        Ok(connection)
    }

    /// Sends one message, made by [`prefixed`], and leaves the answer's in `answer`.
    pub fn call(&mut self, message: &[u8], answer: &mut Vec<u8>) -> Result<(), Failure> {
        let first = self.last_stream == 0;
        self.last_stream = if first { 1 } else { self.last_stream + 2 };
        self.sending.clear();
        let block = if first { self.first_headers() } else { LATER_HEADERS.to_vec() };
        frame(&mut self.sending, HEADERS, END_HEADERS, self.last_stream, &block);
        self.send_message(message)?;
        answer.clear();
        loop {
            let next = self.next_frame()?;
            match next.kind {
                DATA if next.stream == self.last_stream => {
                    let payload = &self.received[next.start..next.end];
                    let padding = if next.flags & PADDED != 0 { usize::from(payload[0]) + 1 } else { 0 };
                    let from = usize::from(next.flags & PADDED != 0);
                    answer.extend_from_slice(&payload[from..payload.len() + from - padding]);
                    self.took(next.end - next.start)?;
                }
                HEADERS if next.stream == self.last_stream => {}
                RST_STREAM if next.stream == self.last_stream => return Err("the server ended the request".into()),
                _ => {
                    self.control(&next)?;
                    continue;
                }
            }
            if next.flags & END_STREAM != 0 {
                return message_of(answer);
            }
        }
    }

    /// The message as data frames, as far as the peer has room, with what stands in `sending` before it.
    fn send_message(&mut self, message: &[u8]) -> Result<(), Failure> {
        let mut rest = message;
        let mut stream_window = self.stream_window;
        loop {
            let room = stream_window.min(self.connection_window).max(0);
            let part = rest.len().min(self.frame_bytes_max).min(usize::try_from(room)?);
            if part == 0 {
                self.stream.write_all(&self.sending)?;
                self.sending.clear();
                let next = self.next_frame()?;
                if next.kind == WINDOW_UPDATE && next.stream == self.last_stream {
                    stream_window += i64::from(self.number(&next)?);
                } else {
                    self.control(&next)?;
                }
                continue;
            }
            let flags = if part == rest.len() { END_STREAM } else { 0 };
            frame(&mut self.sending, DATA, flags, self.last_stream, &rest[..part]);
            stream_window -= part as i64;
            self.connection_window -= part as i64;
            if flags != 0 {
                self.stream.write_all(&self.sending)?;
                return Ok(());
            }
            rest = &rest[part..];
        }
    }

    /// All headers, in a form that puts them into the peer's table.
    fn first_headers(&self) -> Vec<u8> {
        let mut block = vec![POST, HTTP];
        let mut indexed = |name: u8, value: &str| {
            block.push(0x40 | name);
            if name == 0 {
                text(&mut block, "te");
            }
            text(&mut block, value);
        };
        indexed(4, &self.path);
        indexed(1, &self.authority);
        indexed(31, "application/grpc");
        indexed(0, "trailers");
        indexed(58, "saker-load");
        block
    }

    fn took(&mut self, bytes: usize) -> Result<(), Failure> {
        self.taken += u32::try_from(bytes)?;
        // Each stream's window is as large, and no answer is.
        if self.taken >= WINDOW_BYTES / 2 {
            let mut update = Vec::new();
            frame(&mut update, WINDOW_UPDATE, 0, 0, &self.taken.to_be_bytes());
            self.stream.write_all(&update)?;
            self.taken = 0;
        }
        Ok(())
    }

    /// Reads one frame that belongs to no request; whether it was the peer's settings.
    fn control_frame(&mut self) -> Result<bool, Failure> {
        let next = self.next_frame()?;
        self.control(&next)?;
        Ok(next.kind == SETTINGS && next.flags & ACK == 0)
    }

    fn control(&mut self, next: &Frame) -> Result<(), Failure> {
        let mut answer = Vec::new();
        match next.kind {
            SETTINGS if next.flags & ACK == 0 => {
                for setting in self.received[next.start..next.end].chunks_exact(6) {
                    let value = u32::from_be_bytes([setting[2], setting[3], setting[4], setting[5]]);
                    match setting[1] {
                        4 => self.stream_window = i64::from(value),
                        5 => self.frame_bytes_max = usize::try_from(value)?,
                        _ => {}
                    }
                }
                frame(&mut answer, SETTINGS, ACK, 0, &[]);
            }
            PING if next.flags & ACK == 0 => {
                frame(&mut answer, PING, ACK, 0, &self.received[next.start..next.end]);
            }
            WINDOW_UPDATE if next.stream == 0 => self.connection_window += i64::from(self.number(next)?),
            GO_AWAY => return Err("the server closes the connection".into()),
            _ => {}
        }
        if !answer.is_empty() {
            self.stream.write_all(&answer)?;
        }
        Ok(())
    }

    fn number(&self, next: &Frame) -> Result<u32, Failure> {
        let bytes: [u8; 4] = self.received[next.start..next.end].try_into()?;
        Ok(u32::from_be_bytes(bytes))
    }

    /// The next frame, which stays in `received` until the next call.
    fn next_frame(&mut self) -> Result<Frame, Failure> {
        self.fill(FRAME_HEADER_BYTES)?;
        let head = &self.received[self.seen..self.seen + FRAME_HEADER_BYTES];
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let stream = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
        let (kind, flags) = (head[3], head[4]);
        self.fill(FRAME_HEADER_BYTES + length)?;
        let start = self.seen + FRAME_HEADER_BYTES;
        self.seen = start + length;
        Ok(Frame { kind, flags, stream, start, end: start + length })
    }

    /// Reads until so many bytes are there that were not looked at.
    fn fill(&mut self, bytes: usize) -> Result<(), Failure> {
        if self.filled - self.seen >= bytes {
            return Ok(());
        }
        self.received.copy_within(self.seen..self.filled, 0);
        (self.seen, self.filled) = (0, self.filled - self.seen);
        if self.received.len() < bytes {
            self.received.resize(bytes, 0);
        }
        while self.filled < bytes {
            let read = self.stream.read(&mut self.received[self.filled..])?;
            self.filled += read;
            if read == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
        Ok(())
    }
}

/// A message with the prefix that gRPC puts before it: not compressed, so many bytes.
pub fn prefixed(message: &[u8]) -> Result<Vec<u8>, Failure> {
    let length = u32::try_from(message.len())?;
    Ok([&[0][..], &length.to_be_bytes(), message].concat())
}

/// Takes that prefix away.
fn message_of(answer: &mut Vec<u8>) -> Result<(), Failure> {
    let prefix: [u8; 5] = answer.get(..5).ok_or("the server answered with an error")?.try_into()?;
    let [compressed, length @ ..] = prefix;
    if compressed != 0 || u32::from_be_bytes(length) as usize != answer.len() - 5 {
        return Err("the answer is not one plain message".into());
    }
    answer.drain(..5);
    Ok(())
}

fn frame(into: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = (payload.len() as u32).to_be_bytes();
    into.extend_from_slice(&length[1..]);
    into.extend_from_slice(&[kind, flags]);
    into.extend_from_slice(&stream.to_be_bytes());
    into.extend_from_slice(payload);
}

/// A header's text, shorter than 127 bytes.
fn text(into: &mut Vec<u8>, value: &str) {
    into.push(value.len() as u8);
    into.extend_from_slice(value.as_bytes());
}

const FRAME_HEADER_BYTES: usize = 9;
const READ_BYTES: usize = 64 << 10;
/// Room for answers, for each request and for all together.
const WINDOW_BYTES: u32 = 1 << 30;
/// Room that either side has before it hears otherwise (RFC 9113, section 6.9.2).
const DEFAULT_WINDOW_BYTES: u32 = 65_535;

/// Frames and flags (RFC 9113, section 6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GO_AWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;

/// Headers by their number in the table (RFC 7541, section 2.3): two that always have one, then those that the first
/// request added, the last added first.
const POST: u8 = 0x83;
const HTTP: u8 = 0x86;
const LATER_HEADERS: [u8; 7] = [POST, HTTP, 0x80 | 66, 0x80 | 65, 0x80 | 64, 0x80 | 63, 0x80 | 62];
