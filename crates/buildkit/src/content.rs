//! The service `Content`: the blobs of build records, by their digests.
//!
//! The layers of the cache are given to nobody: they may be of private images, whose registry asks for a login.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::Stream;
use futures_util::stream::iter;
use lapstrake_diag::Outcome;
use lapstrake_proto::containerd::services::content::v1 as api;
use lapstrake_proto::containerd::services::content::v1::content_server::Content as Service;
use prost_types::Timestamp;
use tonic::{Request, Response, Status, Streaming};

use crate::error;
use crate::filter::Filter;
use crate::history::{Blob, History};
use crate::thread::on_thread;

/// The bytes of one answer.
const PIECE: usize = 1 << 20;
/// The entries of one answer.
const ENTRIES: usize = 100;

/// The service.
pub(crate) struct Content {
    history: Arc<History>,
}

impl Content {
    pub(crate) fn new(history: Arc<History>) -> Content {
        Content { history }
    }

    /// Works with the records on a thread that may block.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&History) -> Outcome<T> + Send + 'static,
    ) -> Result<T, Status> {
        let history = self.history.clone();
        on_thread(move || async move {
            work(&history).map_err(|report| error::status(&report, None, &error::Texts::default()))
        })
        .await
    }

    async fn blob(&self, digest: String) -> Result<Blob, Status> {
        let asked = digest.clone();
        let blob = self.blocking(move |history| history.blob(&asked)).await?;
        blob.ok_or_else(|| Status::not_found(format!("content {digest}: not found")))
    }
}

fn described(digest: String, size: u64, created: i64) -> api::Info {
    let time = Some(Timestamp { seconds: created, nanos: 0 });
    let size = i64::try_from(size).unwrap_or(i64::MAX);
    api::Info { digest, size, created_at: time, updated_at: time, ..api::Info::default() }
}

/// The part of a blob that a client asks for: `size` bytes from `offset` on; 0 is for all of the rest.
fn part(bytes: &[u8], offset: i64, size: i64) -> Result<&[u8], Status> {
    let refused =
        || Status::out_of_range(format!("read of {size} bytes at {offset} is out of {}", bytes.len()));
    let begin = usize::try_from(offset).map_err(|_| refused())?;
    let rest = bytes.get(begin..).ok_or_else(refused)?;
    match usize::try_from(size).map_err(|_| refused())? {
        0 => Ok(rest),
        size => rest.get(..size).ok_or_else(refused),
    }
}

#[tonic::async_trait]
impl Service for Content {
    type ListStream = Pin<Box<dyn Stream<Item = Result<api::ListContentResponse, Status>> + Send>>;
    type ReadStream = Pin<Box<dyn Stream<Item = Result<api::ReadContentResponse, Status>> + Send>>;
    type WriteStream = Pin<Box<dyn Stream<Item = Result<api::WriteContentResponse, Status>> + Send>>;

    async fn info(&self, request: Request<api::InfoRequest>) -> Result<Response<api::InfoResponse>, Status> {
        let digest = request.into_inner().digest;
        let Blob { bytes, created } = self.blob(digest.clone()).await?;
        let info = Some(described(digest, bytes.len() as u64, created));
        Ok(Response::new(api::InfoResponse { info }))
    }

    async fn list(
        &self,
        request: Request<api::ListContentRequest>,
    ) -> Result<Response<Self::ListStream>, Status> {
        let filters = request.into_inner().filters;
        let blobs = self.blocking(move |history| {
            let filters = filters.iter().map(|text| Filter::parse(text)).collect::<Outcome<Vec<_>>>()?;
            let field = |path: &[String], digest: &str, size: u64| match path.first()?.as_str() {
                "digest" => Some(digest.to_owned()),
                "size" => Some(size.to_string()),
                _ => None,
            };
            let fits = |digest: &str, size: u64| {
                filters.is_empty() || filters.iter().any(|one| one.fits(|path| field(path, digest, size)))
            };
            let all = history.blobs()?.into_iter().filter(|(digest, (size, _))| fits(digest, *size));
            Ok(all.map(|(digest, (size, created))| described(digest, size, created)).collect::<Vec<_>>())
        });
        let blobs = blobs.await?;
        let answers: Vec<_> =
            blobs.chunks(ENTRIES).map(|info| Ok(api::ListContentResponse { info: info.to_vec() })).collect();
        Ok(Response::new(Box::pin(iter(answers))))
    }

    async fn read(
        &self,
        request: Request<api::ReadContentRequest>,
    ) -> Result<Response<Self::ReadStream>, Status> {
        let api::ReadContentRequest { digest, offset, size } = request.into_inner();
        let bytes = self.blob(digest).await?.bytes;
        let wanted = part(&bytes, offset, size)?.to_vec();
        let pieces = (0..wanted.len()).step_by(PIECE).map(move |begin| {
            let data = wanted[begin..wanted.len().min(begin + PIECE)].to_vec();
            let place = offset.saturating_add(i64::try_from(begin).unwrap_or(i64::MAX));
            Ok(api::ReadContentResponse { offset: place, data })
        });
        Ok(Response::new(Box::pin(iter(pieces))))
    }

    async fn write(
        &self,
        _request: Request<Streaming<api::WriteContentRequest>>,
    ) -> Result<Response<Self::WriteStream>, Status> {
        Err(Status::unimplemented("the content of `lapstrake serve` is only read"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_blobs() {
        let read =
            |offset, size| part(b"abcdef", offset, size).map(<[u8]>::to_vec).map_err(|error| error.code());
        assert_eq!(read(0, 0).unwrap(), b"abcdef");
        assert_eq!(read(2, 3).unwrap(), b"cde");
        assert_eq!(read(6, 0).unwrap(), b"");
        for (offset, size) in [(7, 0), (-1, 0), (0, -1), (4, 3), (i64::MAX, i64::MAX)] {
            assert_eq!(read(offset, size), Err(tonic::Code::OutOfRange), "{offset} {size}");
        }
    }
}
