//! As much of gRPC as containerd asks for: calls over a Unix socket, and messages put together field by field.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::path::Path;

use bytes::{Buf as _, Bytes, BytesMut};
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request};
use tokio::net::UnixStream;
use tokio::task::JoinHandle;

/// Answers are short; a longer one is no answer to us.
const LONGEST: usize = 4 << 20;

/// How a call ended that did not end well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Status {
    /// gRPC's number for it; `None` where the connection is at fault.
    pub(crate) code: Option<u32>,
    /// What was said.
    pub(crate) why: String,
}

impl Status {
    fn broken(error: impl Into<Box<dyn std::error::Error>>) -> Status {
        Status { code: None, why: error.into().to_string() }
    }

    /// What is to be made is there.
    pub(crate) fn is_there_already(&self) -> bool {
        self.code == Some(6)
    }
}

/// A message in the wire format of protobuf, whose fields are written one after the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(u8::try_from(value & 0x7f).unwrap_or(0) | 0x80);
            value >>= 7;
        }
        self.0.push(u8::try_from(value).unwrap_or(0));
    }

    /// An integer or the number of an enum's value.
    pub(crate) fn number(mut self, field: u64, value: u64) -> Message {
        self.varint(field << 3);
        self.varint(value);
        self
    }

    /// Bytes, or a text, or a message.
    pub(crate) fn bytes(mut self, field: u64, value: &[u8]) -> Message {
        self.varint(field << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
        self
    }

    /// A message in a message.
    pub(crate) fn message(self, field: u64, value: &Message) -> Message {
        self.bytes(field, &value.0)
    }

    /// A map of texts.
    pub(crate) fn map(self, field: u64, map: &BTreeMap<String, String>) -> Message {
        map.iter().fold(self, |message, (key, value)| {
            let pair = Message::default().bytes(1, key.as_bytes()).bytes(2, value.as_bytes());
            message.message(field, &pair)
        })
    }
}

/// A connection. Ends with this value.
pub(crate) struct Channel {
    send: SendRequest<Bytes>,
    headers: Vec<(&'static str, String)>,
    connection: JoinHandle<()>,
}

impl Channel {
    /// Connects to who listens at `socket`; `headers` go with every call.
    pub(crate) async fn connect(
        socket: &Path,
        headers: Vec<(&'static str, String)>,
    ) -> std::io::Result<Channel> {
        let stream = UnixStream::connect(socket).await?;
        let (send, connection) = h2::client::handshake(stream).await.map_err(std::io::Error::other)?;
        // What is wrong with it the calls hear.
        let connection = tokio::spawn(async move { connection.await.unwrap_or_default() });
        Ok(Channel { send, headers, connection })
    }

    /// A call to be talked over.
    pub(crate) async fn call(&self, path: &str) -> Result<Call, Status> {
        let mut request = Request::post(format!("http://containerd{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        let request = request.body(()).map_err(Status::broken)?;
        let mut send = self.send.clone().ready().await.map_err(Status::broken)?;
        let (response, out) = send.send_request(request, false).map_err(Status::broken)?;
        Ok(Call { out, response: Some(response), body: None, heard: BytesMut::new() })
    }

    /// A question and its answer, of which only how it ended is of interest.
    pub(crate) async fn ask(&self, path: &str, message: Message) -> Result<(), Status> {
        let mut call = self.call(path).await?;
        let said = call.say(message, true).await;
        while call.hear().await?.is_some() {}
        said
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// A call that goes on.
pub(crate) struct Call {
    out: SendStream<Bytes>,
    response: Option<ResponseFuture>,
    body: Option<RecvStream>,
    heard: BytesMut,
}

impl Call {
    /// Says something, for the `last` time or not.
    pub(crate) async fn say(&mut self, message: Message, last: bool) -> Result<(), Status> {
        let length = u32::try_from(message.0.len()).map_err(Status::broken)?;
        let mut frame = BytesMut::with_capacity(message.0.len() + 5);
        frame.extend_from_slice(&[0]);
        frame.extend_from_slice(&length.to_be_bytes());
        frame.extend_from_slice(&message.0);
        while !frame.is_empty() {
            self.out.reserve_capacity(frame.len());
            let room = poll_fn(|context| self.out.poll_capacity(context)).await;
            let room = room.ok_or_else(|| Status::broken("the call is over"))?.map_err(Status::broken)?;
            let piece = frame.split_to(room.min(frame.len())).freeze();
            self.out.send_data(piece, last && frame.is_empty()).map_err(Status::broken)?;
        }
        Ok(())
    }

    /// The next answer; `None` is the end.
    pub(crate) async fn hear(&mut self) -> Result<Option<Bytes>, Status> {
        if let Some(response) = self.response.take() {
            let response = response.await.map_err(Status::broken)?;
            if let Some(status) = ended(response.headers()) {
                return status.map(|()| None);
            }
            self.body = Some(response.into_body());
        }
        let Some(body) = &mut self.body else { return Ok(None) };
        loop {
            if let Some(length) = self.heard.get(1..5).and_then(|bytes| bytes.try_into().ok()) {
                let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
                if length > LONGEST {
                    return Err(Status::broken("an answer is too long"));
                }
                if self.heard.len() >= length + 5 {
                    self.heard.advance(5);
                    return Ok(Some(self.heard.split_to(length).freeze()));
                }
            }
            match body.data().await {
                Some(data) => {
                    let data = data.map_err(Status::broken)?;
                    body.flow_control().release_capacity(data.len()).map_err(Status::broken)?;
                    self.heard.extend_from_slice(&data);
                }
                None => {
                    let trailers = body.trailers().await.map_err(Status::broken)?.unwrap_or_default();
                    let ended = ended(&trailers);
                    return ended.unwrap_or_else(|| Err(Status::broken("it hung up"))).map(|()| None);
                }
            }
        }
    }
}

/// What headers or trailers say of the end of a call, if they do.
fn ended(headers: &HeaderMap) -> Option<Result<(), Status>> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let code: u32 = text("grpc-status")?.parse().ok()?;
    if code == 0 {
        return Some(Ok(()));
    }
    Some(Err(Status { code: Some(code), why: unquoted(text("grpc-message").unwrap_or_default()) }))
}

/// A text with `%41` for `A`.
fn unquoted(text: &str) -> String {
    let mut parts = text.split('%');
    let mut out: Vec<u8> = parts.next().unwrap_or_default().into();
    for part in parts {
        match part.get(..2).and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                out.extend_from_slice(&part.as_bytes()[2..]);
            }
            None => out.extend([b"%", part.as_bytes()].concat()),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_what_protobuf_says() {
        // The examples of its documentation.
        assert_eq!(Message::default().number(1, 150).0, [0x08, 0x96, 0x01]);
        assert_eq!(
            Message::default().bytes(2, b"testing").0,
            [0x12, 0x07, 0x74, 0x65, 0x73, 0x74, 0x69, 0x6e, 0x67]
        );
        let inner = Message::default().number(1, 150);
        assert_eq!(Message::default().message(3, &inner).0, [0x1a, 0x03, 0x08, 0x96, 0x01]);
        let map = [("a".to_owned(), "b".to_owned())].into();
        assert_eq!(Message::default().map(7, &map).0, [0x3a, 6, 0x0a, 1, b'a', 0x12, 1, b'b']);
    }

    #[test]
    fn reasons_are_read() {
        assert_eq!(unquoted("a%20b%e2%82%ac%zz%"), "a b\u{20ac}%zz%");
        let mut headers = HeaderMap::new();
        assert_eq!(ended(&headers), None);
        headers.insert("grpc-status", http::HeaderValue::from_static("6"));
        assert!(ended(&headers).unwrap().unwrap_err().is_there_already());
    }
}
