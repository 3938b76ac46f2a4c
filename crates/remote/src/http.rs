//! HTTP downloads that ask first whether anything is new.

use std::io;

use flate2::write::MultiGzDecoder;
use futures_util::StreamExt as _;
use jiff::fmt::rfc2822;
use lapstrake_http::retry::{ABSENT, ATTEMPTS, attempts_after, is_absence, pause, retry_after};
use lapstrake_http::{Proxies, builder};
use lapstrake_oci::{Digest, Sha256};
use reqwest::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_DISPOSITION, CONTENT_ENCODING, ETAG, HeaderMap, HeaderName,
    IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED,
};
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};

use crate::error::RemoteError;

/// The value of `User-Agent`: servers that treat BuildKit's downloads in their own way treat these alike.
const USER_AGENT: &str = concat!("lapstrake/", env!("CARGO_PKG_VERSION"), " (like buildkit/v0.27)");

/// What is known of a file from an earlier download.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Its `ETag`; empty if it had none.
    pub etag: String,
    /// Its `Last-Modified` as sent; empty if it had none.
    pub modified: String,
    /// The file name in its `Content-Disposition`, which may be anything; empty if it had none.
    pub name: String,
}

/// Something to be downloaded.
#[derive(Clone, Debug)]
pub struct Download<'a> {
    /// Where it is.
    pub url: &'a str,
    /// What an earlier download left.
    pub known: Option<&'a Known>,
    /// The value of an `Authorization` header. It does not follow redirects to other hosts.
    pub authorization: Option<&'a str>,
    /// Further headers.
    pub headers: &'a [(String, String)],
}

/// What became of a download.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// What is known is still right; nothing was sent.
    Unchanged,
    /// The file went to the sink.
    File {
        /// For the next time.
        known: Known,
        /// The digest of its bytes.
        digest: Digest,
        /// Its length in bytes.
        size: u64,
    },
}

impl Known {
    /// `Last-Modified` in seconds since the Unix epoch.
    pub fn modified_seconds(&self) -> Option<i64> {
        let parsed = rfc2822::DateTimeParser::new().relaxed_weekday(true).parse_timestamp(&self.modified);
        // Servers may also send the two obsolete forms of HTTP: RFC 850 and asctime. Go's client takes UTC for GMT there.
        let obsolete = || {
            let text = self.modified.strip_suffix(" UTC").map(|text| format!("{text} GMT"));
            httpdate::parse_http_date(text.as_deref().unwrap_or(&self.modified)).ok()?.try_into().ok()
        };
        parsed.ok().or_else(obsolete).map(jiff::Timestamp::as_second)
    }
}

/// A client. Making one reads the system's certificates (some ms): make it once, and late.
pub struct Web {
    http: reqwest::Client,
}

impl Web {
    /// A client that goes by these proxies.
    ///
    /// # Errors
    /// [`RemoteError::Setup`] if there are no certificates, say.
    pub fn new(proxies: &Proxies) -> Result<Web, RemoteError> {
        let http = builder(proxies)
            .user_agent(USER_AGENT)
            .redirect(reqwest::redirect::Policy::limited(10))
            .build()
            .map_err(|source| RemoteError::Setup { source })?;
        Ok(Web { http })
    }

    /// Downloads to `sink`; `passed` is told how many bytes have come, and of how many if that is known.
    ///
    /// # Errors
    /// [`RemoteError`]: the server cannot be reached or says no, or the sink fails.
    pub async fn get(
        &self,
        download: &Download<'_>,
        sink: &mut (impl io::Write + Send),
        passed: impl Fn(u64, u64),
    ) -> Result<Answer, RemoteError> {
        let shown = without_login(download.url)?;
        if self.is_unchanged(download).await {
            return Ok(Answer::Unchanged);
        }
        let response = self.ask(download, &shown).await?;
        if response.status() == StatusCode::NOT_MODIFIED && download.known.is_some() {
            return Ok(Answer::Unchanged);
        }
        if !response.status().is_success() {
            return Err(RemoteError::Status { url: shown, status: response.status().as_u16() });
        }
        let known = Known {
            etag: header(response.headers(), &ETAG),
            modified: header(response.headers(), &LAST_MODIFIED),
            name: file_name(&header(response.headers(), &CONTENT_DISPOSITION)).unwrap_or_default(),
        };
        let total = response.content_length().unwrap_or(0);
        let is_packed = header(response.headers(), &CONTENT_ENCODING).eq_ignore_ascii_case("gzip");
        let counted = Counted { sink, hash: Sha256::new(), size: 0 };
        let mut unpacked =
            if is_packed { Body::Gzip(Box::new(MultiGzDecoder::new(counted))) } else { Body::Plain(counted) };
        let mut came = 0u64;
        let mut body = response.bytes_stream();
        while let Some(piece) = body.next().await {
            let piece = piece.map_err(|source| RemoteError::Unreachable { url: shown.clone(), source })?;
            came += piece.len() as u64;
            unpacked.write(&piece).map_err(|source| RemoteError::Sink { url: shown.clone(), source })?;
            passed(came, total);
        }
        let Counted { hash, size, .. } =
            unpacked.finish().map_err(|source| RemoteError::Sink { url: shown.clone(), source })?;
        Ok(Answer::File { known, digest: hash.finish(), size })
    }

    /// Whether the server says, without sending the file, that it has the known `ETag`. Some servers give an `ETag` and send
    /// the file all the same when they are asked for another one. Whatever goes wrong here shows when the file is asked for.
    async fn is_unchanged(&self, download: &Download<'_>) -> bool {
        let Some(known) = download.known.filter(|known| !known.etag.is_empty()) else { return false };
        let Ok(response) = self.request(Method::HEAD, download).send().await else { return false };
        let etag = header(response.headers(), &ETAG);
        match response.status() {
            StatusCode::NOT_MODIFIED => etag.is_empty() || same_etag(&etag, &known.etag),
            StatusCode::OK => same_etag(&etag, &known.etag),
            _ => false,
        }
    }

    fn request(&self, method: Method, download: &Download<'_>) -> RequestBuilder {
        // Some servers have another `ETag` for a request without this header.
        let mut request = self.http.request(method, download.url).header(ACCEPT_ENCODING, "gzip");
        if let Some(known) = download.known {
            for (name, value) in [(IF_NONE_MATCH, &known.etag), (IF_MODIFIED_SINCE, &known.modified)] {
                if !value.is_empty() {
                    request = request.header(name, value);
                }
            }
        }
        for (name, value) in download.headers {
            request = request.header(name, value);
        }
        match download.authorization {
            Some(value) => request.header(AUTHORIZATION, value),
            None => request,
        }
    }

    async fn ask(&self, download: &Download<'_>, shown: &str) -> Result<Response, RemoteError> {
        for attempt in 1.. {
            match self.request(Method::GET, download).send().await {
                Ok(response) if attempt >= attempts_after(response.status()) => return Ok(response),
                Ok(response) => pause(attempt, retry_after(&response)).await,
                Err(source) => {
                    let most = if is_absence(&source) { ABSENT } else { ATTEMPTS };
                    if attempt >= most || source.is_builder() {
                        let (url, source) = (shown.to_owned(), source.without_url());
                        return Err(RemoteError::Unreachable { url, source });
                    }
                    pause(attempt, None).await;
                }
            }
        }
        Err(RemoteError::Address { url: shown.to_owned() })
    }
}

/// A sink that counts what it gets.
struct Counted<'s, W> {
    sink: &'s mut W,
    hash: Sha256,
    size: u64,
}

impl<W: io::Write> io::Write for Counted<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.sink.write(bytes)?;
        self.hash.update(&bytes[..count]);
        self.size += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}

/// The body of an answer on its way to a sink.
enum Body<'s, W: io::Write> {
    /// As the server sends it.
    Plain(Counted<'s, W>),
    /// Compressed for the way alone.
    Gzip(Box<MultiGzDecoder<Counted<'s, W>>>),
}

impl<'s, W: io::Write> Body<'s, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Body::Plain(sink) => io::Write::write_all(sink, bytes),
            Body::Gzip(decoder) => io::Write::write_all(decoder, bytes),
        }
    }

    fn finish(self) -> io::Result<Counted<'s, W>> {
        match self {
            Body::Plain(sink) => Ok(sink),
            Body::Gzip(decoder) => decoder.finish(),
        }
    }
}

/// The file name in a `Content-Disposition`, as RFC 6266 has it.
fn file_name(disposition: &str) -> Option<String> {
    let mut rest = disposition.split_once(';')?.1;
    let mut found = None;
    while !rest.is_empty() {
        let (key, value) = rest.split_once('=')?;
        let (value, after) = parameter(value.trim_start());
        rest = after.trim_start().strip_prefix(';').unwrap_or_default();
        match key.trim().to_ascii_lowercase().as_str() {
            "filename*" => return decoded(&value),
            "filename" => found = Some(value),
            _ => {}
        }
    }
    found.filter(|name| !name.is_empty() && !name.ends_with('/'))
}

/// The value of a parameter, and what comes behind it.
fn parameter(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(';').unwrap_or(text.len());
        return (text[..end].trim().to_owned(), &text[end..]);
    };
    let (mut value, mut is_escaped) = (String::new(), false);
    for (at, c) in quoted.char_indices() {
        match c {
            '"' if !is_escaped => return (value, &quoted[at + 1..]),
            '\\' if !is_escaped => is_escaped = true,
            c => {
                is_escaped = false;
                value.push(c);
            }
        }
    }
    (value, "")
}

/// The value of an extended parameter: `UTF-8'LANGUAGE'BYTES`.
fn decoded(text: &str) -> Option<String> {
    let (charset, rest) = text.split_once('\'')?;
    let (_, encoded) = rest.split_once('\'')?;
    let is_known = charset.eq_ignore_ascii_case("utf-8") || charset.eq_ignore_ascii_case("us-ascii");
    let decoded = percent_encoding::percent_decode_str(encoded).decode_utf8().ok()?;
    is_known.then(|| decoded.into_owned()).filter(|name| !name.is_empty() && !name.ends_with('/'))
}

/// Whether two `ETag`s name the same content. A weak one counts as a strong one, as BuildKit has it.
fn same_etag(one: &str, other: &str) -> bool {
    one.trim_start_matches("W/") == other.trim_start_matches("W/")
}

fn header(headers: &HeaderMap, name: &HeaderName) -> String {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
}

/// An address for messages.
pub(crate) fn without_login(url: &str) -> Result<String, RemoteError> {
    let mut parsed = Url::parse(url).map_err(|_| RemoteError::Address { url: url.to_owned() })?;
    if parsed.username().is_empty() && parsed.password().is_none() {
        return Ok(url.to_owned());
    }
    // Both fail only for addresses without a host, which have no login either.
    parsed.set_password(None).unwrap_or_default();
    parsed.set_username("").unwrap_or_default();
    Ok(parsed.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        let seconds = |text: &str| Known { modified: text.to_owned(), ..Known::default() }.modified_seconds();
        assert_eq!(seconds("Wed, 21 Oct 2015 07:28:00 GMT"), Some(1_445_412_480));
        assert_eq!(seconds("Wednesday, 21-Oct-15 07:28:00 GMT"), Some(1_445_412_480));
        assert_eq!(seconds("Wednesday, 21-Oct-15 07:28:00 UTC"), Some(1_445_412_480));
        assert_eq!(seconds("Wed Oct 21 07:28:00 2015"), Some(1_445_412_480));
        assert_eq!(seconds("Sunday"), None);
        assert_eq!(seconds(""), None);
    }

    #[test]
    fn names_of_files() {
        for (disposition, name) in [
            (r#"attachment; filename="my img.jpg""#, Some("my img.jpg")),
            (r#"attachment; filename="a\"b;c.txt"; x=y"#, Some("a\"b;c.txt")),
            ("inline; x=y; FileName=plain.txt", Some("plain.txt")),
            ("attachment; filename=a; filename*=UTF-8''%c3%a4%20b", Some("ä b")),
            ("attachment; filename*=latin1''x", None),
            ("attachment; filename=\"dir/\"", None),
            ("attachment", None),
            ("", None),
        ] {
            assert_eq!(file_name(disposition).as_deref(), name, "{disposition}");
        }
    }

    #[test]
    fn logins_are_not_shown() {
        assert_eq!(without_login("https://me:secret@host/x?y").unwrap(), "https://host/x?y");
        assert_eq!(without_login("https://host/x").unwrap(), "https://host/x");
        assert!(without_login("nothing").is_err());
    }
}
