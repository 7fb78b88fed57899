//! One connection from its first byte to its last: on which thread it is served, and where its requests are answered.
//!
//! What it deliberately does not do: it accepts none, and knows nothing of TLS.
//!
//! Start reading at [`Conversation::go_on`].

use std::{future::poll_fn, pin::Pin, sync::Arc, task::Poll, time::Duration};

use axum::{
    Router,
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use futures::{FutureExt as _, future::BoxFuture};
use hyper::{Request, body::Incoming, service::Service};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    runtime::Handle,
    sync::OwnedSemaphorePermit,
};
use tokio_util::{
    sync::CancellationToken,
    task::{AbortOnDropHandle, TaskTracker},
};

use super::{
    DRAIN_MAX, HANDSHAKE_MAX,
    at_once::{self, AtOnce},
};
use crate::{
    carried::{Carried, PARTING_MAX},
    rest::Searches,
    threads::{Seat, UnderWay},
};

/// Most requests at a time on one HTTP/2 connection.
const STREAMS_MAX: u32 = 1_024;
/// HTTP/2 flow control windows: a 64 MiB insert should not wait for round trips.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// Largest HTTP/2 frame taken: a hundred query vectors come in one piece, which is then read in place.
const FRAME_BYTES_MAX: u32 = 256 << 10;
/// How often an idle HTTP/2 client is asked whether it is there.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// What belongs to a connection beside its bytes.
pub(super) struct About {
    pub(super) carried: Carried,
    pub(super) seat: Option<Arc<Seat>>,
    pub(super) stop: CancellationToken,
    pub(super) conversations: TaskTracker,
    pub(super) _room: OwnedSemaphorePermit,
}

/// A connection that is served. It has a task on its thread, and another one after it moved.
pub(super) struct Conversation<S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    connection: Pin<Box<auto::Connection<'static, TokioIo<S>, OfConnection, AtOnce>>>,
    about: About,
}

impl<S> Conversation<S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    pub(super) fn new(stream: S, requests: OfConnection, about: About) -> Self {
        let mut builder = auto::Builder::new(AtOnce);
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(HANDSHAKE_MAX);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS_MAX)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_frame_size(FRAME_BYTES_MAX)
            .keep_alive_interval(KEEP_ALIVE);
        let connection = builder.serve_connection(TokioIo::new(stream), requests).into_owned();
        Self {
            connection: Box::pin(connection),
            about,
        }
    }

    /// Serves it until it ends or moves.
    pub(super) async fn go_on(mut self) {
        let time_left = tokio::select! {
            next = next_of(self.connection.as_mut(), self.about.seat.as_deref()) => match next {
                Next::Ended(ended) => return note_end(ended),
                Next::Moved(thread) => return self.go_on_at(&thread),
            },
            () = self.about.stop.cancelled() => DRAIN_MAX,
            () = self.about.carried.parting() => PARTING_MAX,
        };
        self.connection.as_mut().graceful_shutdown();
        // Dropping the connection after that frees its buffers, whatever the client does.
        match tokio::time::timeout(time_left, self.connection).await {
            Ok(ended) => note_end(ended),
            Err(_) => tracing::warn!("requests of a connection did not end in time and were cut off"),
        }
    }

    /// Serves it on another thread. Requests that are under way end where they are and answer from there.
    fn go_on_at(self, thread: &Handle) {
        let conversations = self.about.conversations.clone();
        conversations.spawn_on(self.go_on(), thread);
    }
}

type Ended = Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// What a connection does next.
enum Next {
    Ended(Ended),
    Moved(Handle),
}

/// Serves a connection until it ends, or its seat is on another thread.
async fn next_of(mut connection: Pin<&mut impl Future<Output = Ended>>, seat: Option<&Seat>) -> Next {
    poll_fn(|cx| {
        // A request that is answered at once leaves an answer to send.
        let mut rounds = 0..ROUNDS_MAX;
        while rounds.next().is_some() {
            let (polled, begun) = at_once::begun_by(|| connection.as_mut().poll(cx));
            if let Poll::Ready(ended) = polled {
                begun.into_iter().for_each(at_once::spawn);
                return Poll::Ready(Next::Ended(ended));
            }
            if !at_once::answer(begun) {
                break;
            }
        }
        if rounds.is_empty() {
            // Others have a turn first.
            cx.waker().wake_by_ref();
        }
        match seat.and_then(Seat::take_move) {
            Some(thread) => Poll::Ready(Next::Moved(thread.clone())),
            None => Poll::Pending,
        }
    })
    .await
}

/// Most requests of one connection that are answered one after the other before other connections have a turn.
const ROUNDS_MAX: usize = 4;

fn note_end(ended: Ended) {
    if let Err(error) = ended {
        tracing::debug!(error, "connection ended");
    }
}

/// Gives each request what its connection carried, and a place to run.
pub(super) struct OfConnection {
    pub(super) router: TowerToHyperService<Router>,
    /// What answers searches; `None`: nobody but the router.
    pub(super) searches: Option<Searches>,
    pub(super) carried: Carried,
    pub(super) seat: Option<Arc<Seat>>,
    /// For requests that may take long, or begin work that outlives their connection.
    pub(super) runtime: Handle,
}

impl Service<Request<Incoming>> for OfConnection {
    type Response = Response;
    type Error = std::convert::Infallible;
    type Future = BoxFuture<'static, Result<Response, Self::Error>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        if let Some(seat) = &self.seat {
            seat.used();
        }
        if let Some(searches) = self.searches.as_ref().filter(|_| Searches::takes(&request)) {
            let answer = searches
                .clone()
                .answer(request, self.carried.clone(), UnderWay::begin());
            return answer.boxed();
        }
        request.extensions_mut().insert(self.carried.clone());
        let task = AbortOnDropHandle::new(self.runtime.spawn(self.router.call(request)));
        async move {
            // It panicked, or the process is ending.
            task.await
                .unwrap_or_else(|_| Ok(StatusCode::INTERNAL_SERVER_ERROR.into_response()))
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use axum::routing::get;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::{TcpListener, TcpStream},
        sync::Semaphore,
    };

    use super::*;
    use crate::{
        carried::Connections,
        threads::{ConnectionThreads, Socket},
    };

    async fn ask(client: &mut TcpStream) {
        client.write_all(b"GET / HTTP/1.1\r\nhost: here\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"there") {
            assert_ne!(client.read_buf(&mut answer).await.unwrap(), 0);
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_connection_that_moved_needs_its_old_thread_no_more() {
        let threads = ConnectionThreads::started(2);
        let seat = threads.seat().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let stream = listener.accept().await.unwrap().0.into_std().unwrap();
        let (router, carried) = (
            Router::new().route("/", get(|| async { "there" })),
            Connections::default().open(),
        );
        let requests = OfConnection {
            router: TowerToHyperService::new(router),
            searches: None,
            carried: carried.clone(),
            seat: Some(Arc::clone(&seat)),
            runtime: Handle::current(),
        };
        let room = Arc::new(Semaphore::new(1));
        let conversations = TaskTracker::new();
        let about = About {
            carried,
            seat: Some(Arc::clone(&seat)),
            stop: CancellationToken::new(),
            conversations: conversations.clone(),
            _room: Arc::clone(&room).acquire_owned().await.unwrap(),
        };
        let stop = about.stop.clone();
        let before = seat.runtime().clone();
        let begin = async move {
            Conversation::new(Socket::new(stream).unwrap(), requests, about)
                .go_on()
                .await;
        };
        conversations.spawn_on(begin, &before);
        ask(&mut client).await;
        for _ in 0..3 {
            let before = seat.runtime().clone();
            seat.move_on();
            // It is told while it looks at its bytes.
            ask(&mut client).await;
            let (release, held) = mpsc::channel::<()>();
            let (stands, standing) = tokio::sync::oneshot::channel();
            before.spawn(async move {
                let _heard = stands.send(());
                let _released = held.recv();
            });
            standing.await.unwrap();
            ask(&mut client).await;
            drop(release);
        }
        conversations.close();
        stop.cancel();
        conversations.wait().await;
        assert_eq!(room.available_permits(), 1);
    }
}
