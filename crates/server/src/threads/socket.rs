//! A socket that may be used on one connection thread after another.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::NUMBER;

/// A socket that is registered with the reactor of the thread on which it was last used.
#[derive(Debug)]
pub(crate) struct Socket {
    /// `None` only if moving it failed.
    stream: Option<TcpStream>,
    thread: usize,
}

impl Socket {
    /// From one that is registered nowhere, on the thread that will use it first.
    ///
    /// # Errors
    /// What the system says if it cannot be registered.
    pub(crate) fn new(stream: std::net::TcpStream) -> io::Result<Self> {
        Ok(Self {
            stream: Some(TcpStream::from_std(stream)?),
            thread: NUMBER.get(),
        })
    }

    /// The socket, registered here.
    fn here(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        let here = NUMBER.get();
        if self.thread != here {
            let elsewhere = self.stream.take().ok_or(io::ErrorKind::NotConnected)?;
            self.stream = Some(TcpStream::from_std(elsewhere.into_std()?)?);
            self.thread = here;
        }
        let stream = self.stream.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        Ok(Pin::new(stream))
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.here()?.poll_read(cx, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.here()?.poll_write(cx, bytes)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.here()?.poll_write_vectored(cx, parts)
    }
    fn is_write_vectored(&self) -> bool {
        true
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.here()?.poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.here()?.poll_shutdown(cx)
    }
}
