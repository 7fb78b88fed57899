//! Searches, past the layers that all other requests go through.
//!
//! A search takes about as long as those layers and the hand-over between their parts, so it has a way of its own from the
//! frames of a request to those of the answer: the message is read where it was received, and the answer is written into
//! one buffer. Who asks is checked, and what is refused is counted and recorded, exactly as in `grpc`; what is done is the
//! same function.
//!
//! What it deliberately does not do: requests that are anything but plain (compressed, or no gRPC); the router has them.
//!
//! Start reading at [`Searches::answer`].

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use axum::{
    body::{Body as AnyBody, HttpBody},
    http::{HeaderMap, HeaderValue, Method, header},
    response::Response,
};
use bytes::{BufMut as _, Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::{
    Request,
    body::{Frame, Incoming, SizeHint},
};
use prost::Message as _;
use saker_model::Limits;
use saker_proto::milvus::SearchRequest;
use tonic::Status;

use super::{
    grpc::{identified, refused},
    text_of,
};
use crate::{
    carried::Carried,
    node::Node,
    rpc::{Call, DATABASE_KEY, Service},
    threads::UnderWay,
};

/// The path of searches.
const PATH: &str = "/milvus.proto.milvus.MilvusService/Search";
/// Whether a message is compressed, and its length.
const PREFIX_BYTES: usize = 5;
/// Room made for a message before it is there, in bytes; more than a hundred long query vectors.
const RESERVED_BYTES_MAX: usize = 1 << 20;

/// Answers searches.
#[derive(Clone, Debug)]
pub(crate) struct Searches {
    node: Arc<Node>,
    service: Service,
}

impl Searches {
    /// Over this node.
    pub(crate) fn new(node: &Arc<Node>) -> Self {
        Self {
            node: Arc::clone(node),
            service: Service::new(Arc::clone(node)),
        }
    }

    /// Whether this is a plain search.
    pub(crate) fn takes<B>(request: &Request<B>) -> bool {
        let headers = request.headers();
        request.uri().path() == PATH
            && request.method() == Method::POST
            && headers.get(header::CONTENT_TYPE).is_some_and(|kind| {
                // Other suffixes are other encodings.
                matches!(kind.as_bytes(), b"application/grpc" | b"application/grpc+proto")
            })
            && headers
                .get("grpc-encoding")
                .is_none_or(|encoding| encoding.as_bytes() == b"identity")
    }

    /// The answer to a request that it [takes](Self::takes), which is `under_way` until it is answered.
    pub(crate) async fn answer(
        self,
        request: Request<Incoming>,
        carried: Carried,
        under_way: UnderWay,
    ) -> Result<Response, Infallible> {
        let started = Instant::now();
        let answer = match self.answer_or_refuse(request, carried).await {
            Ok(message) => {
                let mut response = Response::new(AnyBody::new(OneMessage(Some(message), false)));
                let kind = HeaderValue::from_static("application/grpc");
                response.headers_mut().insert(header::CONTENT_TYPE, kind);
                response
            }
            Err(status) => {
                let code = (status.code() as i32).to_string();
                refused(&self.node, "Search", &code, started);
                status.into_http()
            }
        };
        drop(under_way);
        Ok(answer)
    }

    async fn answer_or_refuse(&self, request: Request<Incoming>, carried: Carried) -> Result<Bytes, Status> {
        let headers = request.headers();
        let user = identified(&self.node, text_of(headers, header::AUTHORIZATION.as_str())).await?;
        let call = Call::new(text_of(headers, DATABASE_KEY), user, Some(carried));
        let message = message_in(request.into_body()).await?;
        let message = SearchRequest::decode(message).map_err(|error| Status::internal(error.to_string()))?;
        Ok(message_out(&self.service.searched(&call, message).await?))
    }
}

/// The one message of a request: in place, if it came in one frame.
async fn message_in<B>(mut body: B) -> Result<Bytes, Status>
where
    B: HttpBody<Data = Bytes> + Unpin,
{
    let mut received = Bytes::new();
    let mut joined = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Status::cancelled("the request ended before its message did"))?;
        let Ok(data) = frame.into_data() else { continue };
        if received.is_empty() && joined.is_empty() {
            received = data;
        } else {
            if joined.is_empty() {
                joined.reserve(announced(&received).unwrap_or_default().min(RESERVED_BYTES_MAX));
                joined.put(std::mem::take(&mut received));
            }
            joined.put(data);
        }
        let so_far = if joined.is_empty() { &received[..] } else { &joined[..] };
        if so_far.len() > PREFIX_BYTES + Limits::MESSAGE_BYTES_MAX || announced(so_far).is_some_and(is_too_large) {
            return Err(super::too_large());
        }
    }
    if !joined.is_empty() {
        received = joined.freeze();
    }
    let Some(length) = announced(&received) else {
        return Err(Status::internal("missing request message"));
    };
    if received.first() != Some(&0) {
        return Err(Status::internal(
            "protocol error: a message is marked as compressed, and no grpc-encoding was given",
        ));
    }
    if received.len() != PREFIX_BYTES + length {
        return Err(Status::internal(format!(
            "protocol error: a message of {length} bytes was announced, {} came",
            received.len() - PREFIX_BYTES
        )));
    }
    Ok(received.split_off(PREFIX_BYTES))
}

/// The length that a message's prefix announces.
fn announced(received: &[u8]) -> Option<usize> {
    let length = received.get(1..PREFIX_BYTES)?;
    usize::try_from(u32::from_be_bytes(length.try_into().ok()?)).ok()
}

fn is_too_large(length: usize) -> bool {
    length > Limits::MESSAGE_BYTES_MAX
}

/// A message with its prefix, in one allocation.
fn message_out(message: &impl prost::Message) -> Bytes {
    let length = message.encoded_len();
    let mut buffer = BytesMut::with_capacity(PREFIX_BYTES + length);
    buffer.put_u8(0);
    // Answers are shorter than `Limits::MESSAGE_BYTES_MAX`.
    buffer.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    message.encode_raw(&mut buffer);
    buffer.freeze()
}

/// The body of an answer: the message, then the trailers that say that it went well.
struct OneMessage(Option<Bytes>, bool);

impl HttpBody for OneMessage {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(message) = self.0.take() {
            return Poll::Ready(Some(Ok(Frame::data(message))));
        }
        if std::mem::replace(&mut self.1, true) {
            return Poll::Ready(None);
        }
        let mut trailers = HeaderMap::with_capacity(1);
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }
    fn is_end_stream(&self) -> bool {
        self.1
    }
    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::StreamBody;

    use super::*;

    async fn read(frames: &[&[u8]]) -> Result<Bytes, Status> {
        let frames: Vec<Result<_, Infallible>> = frames
            .iter()
            .map(|bytes| Ok(Frame::data(Bytes::copy_from_slice(bytes))))
            .collect();
        message_in(StreamBody::new(futures::stream::iter(frames))).await
    }

    fn prefixed(length: usize, bytes: &[u8]) -> Vec<u8> {
        let length = u32::try_from(length).unwrap().to_be_bytes();
        [&[0][..], &length, bytes].concat()
    }

    #[tokio::test]
    async fn a_message_is_read_however_it_is_cut() {
        let whole = prefixed(6, b"abcdef");
        assert_eq!(read(&[&whole]).await.unwrap(), "abcdef");
        for cut in 0..=whole.len() {
            assert_eq!(read(&[&whole[..cut], &whole[cut..]]).await.unwrap(), "abcdef");
        }
        let bytes: Vec<&[u8]> = whole.chunks(1).collect();
        assert_eq!(read(&bytes).await.unwrap(), "abcdef");
        assert_eq!(read(&[&prefixed(0, b"")]).await.unwrap(), "");
    }

    #[tokio::test]
    async fn anything_but_one_plain_message_is_refused() {
        let refused = async |frames: &[&[u8]]| read(frames).await.unwrap_err().code();
        assert_eq!(refused(&[]).await, tonic::Code::Internal);
        assert_eq!(refused(&[b"\0\0\0"]).await, tonic::Code::Internal);
        assert_eq!(refused(&[&prefixed(7, b"abcdef")]).await, tonic::Code::Internal);
        assert_eq!(refused(&[&prefixed(5, b"abcdef")]).await, tonic::Code::Internal);
        assert_eq!(refused(&[b"\x01\0\0\0\x01a"]).await, tonic::Code::Internal);
    }

    #[tokio::test]
    async fn a_message_is_no_larger_than_the_limit() {
        let max = Limits::MESSAGE_BYTES_MAX;
        assert_eq!(read(&[&prefixed(max, &vec![7; max])]).await.unwrap().len(), max);
        // Refused as soon as it is announced.
        let error = read(&[&prefixed(max + 1, b"a")]).await.unwrap_err();
        assert_eq!(error.code(), tonic::Code::ResourceExhausted);
    }

    #[tokio::test]
    async fn an_answer_is_a_message_and_its_trailers() {
        let message = saker_proto::milvus::SearchResults {
            collection_name: "books".into(),
            ..Default::default()
        };
        let bytes = message_out(&message);
        let body = OneMessage(Some(bytes.clone()), false).collect().await.unwrap();
        assert_eq!(body.trailers().unwrap().get("grpc-status").unwrap(), "0");
        let back = read(&[&body.to_bytes()]).await.unwrap();
        assert_eq!(saker_proto::milvus::SearchResults::decode(back).unwrap(), message);
    }

    #[test]
    fn only_plain_searches_are_taken() {
        let request = |path: &str, kind: &str, encoding: Option<&str>| {
            let builder = Request::post(path).header("content-type", kind);
            let builder = encoding.into_iter().fold(builder, |b, e| b.header("grpc-encoding", e));
            builder.body(()).unwrap()
        };
        assert!(Searches::takes(&request(PATH, "application/grpc", None)));
        assert!(Searches::takes(&request(PATH, "application/grpc", Some("identity"))));
        assert!(!Searches::takes(&request(PATH, "application/grpc", Some("gzip"))));
        assert!(!Searches::takes(&request(PATH, "application/grpc-web", None)));
        assert!(!Searches::takes(&request(PATH, "application/json", None)));
        assert!(!Searches::takes(&request(
            "/milvus.proto.milvus.MilvusService/Query",
            "application/grpc",
            None
        )));
        let get = Request::get(PATH).header("content-type", "application/grpc");
        assert!(!Searches::takes(&get.body(()).unwrap()));
    }
}
