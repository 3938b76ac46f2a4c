//! Looking for images: the API of Docker Hub that `docker search` uses.

use lapstrake_diag::Usage;
use lapstrake_oci::Reference;
use serde::Deserialize;

use crate::body::read_small;
use crate::client::Client;
use crate::error::RegistryError;

/// An image that was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Found {
    /// Its name.
    pub name: String,
    /// What its owner says of it.
    pub description: String,
    /// How many people like it.
    pub star_count: u64,
    /// Whether Docker's own people keep it.
    pub is_official: bool,
    /// Whether Docker Hub builds it.
    pub is_automated: bool,
}

/// The results of a search that are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SearchFilter {
    /// The least count of stars.
    pub stars: u64,
    /// Whether Docker's own people keep the image.
    pub official: Option<bool>,
    /// Whether Docker Hub builds the image.
    pub automated: Option<bool>,
}

impl SearchFilter {
    /// Reads the values of `--filter`.
    ///
    /// # Errors
    /// A filter that is not known, or its value.
    pub fn parse(filters: &[String]) -> Result<SearchFilter, Usage> {
        let mut wanted = SearchFilter::default();
        for text in filters {
            let bad = |why: &str| Usage(format!("--filter {text}: {why}"));
            let flag = |value: &str| match value {
                "true" | "1" => Ok(Some(true)),
                "false" | "0" => Ok(Some(false)),
                _ => Err(bad("neither true nor false")),
            };
            match text.split_once('=') {
                Some(("stars", value)) => wanted.stars = value.parse().map_err(|_| bad("not a number"))?,
                Some(("is-official", value)) => wanted.official = flag(value)?,
                Some(("is-automated", value)) => wanted.automated = flag(value)?,
                _ => return Err(bad("not one of stars=N, is-official=BOOL, is-automated=BOOL")),
            }
        }
        Ok(wanted)
    }

    /// Whether `found` is wanted.
    #[must_use]
    pub fn fits(&self, found: &Found) -> bool {
        found.star_count >= self.stars
            && self.official.is_none_or(|wanted| wanted == found.is_official)
            && self.automated.is_none_or(|wanted| wanted == found.is_automated)
    }
}

/// A name in the registry that `term` is searched for in, and the term itself: `registry.example/term` asks that registry, other
/// terms Docker Hub.
///
/// # Errors
/// There is no term.
pub fn search_place(term: &str) -> Result<(Reference, String), Usage> {
    let bad = || Usage(format!("`{term}` cannot be searched for"));
    let (host, rest) = term.split_once('/').unwrap_or(("", term));
    let is_host = host.contains(['.', ':']) || host == "localhost";
    let (host, term) = if is_host { (host, rest) } else { ("docker.io", term) };
    // Any name of the registry will do: only the registry itself is asked.
    let probe: Reference = format!("{host}/lapstrake/search").parse().map_err(|_| bad())?;
    if term.is_empty() { Err(bad()) } else { Ok((probe, term.to_owned())) }
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    results: Vec<Found>,
}

impl Client {
    /// Up to `limit` images that have to do with `term`, in the registry of `reference`.
    ///
    /// # Errors
    /// [`RegistryError`]: it cannot be reached, or does not know how to search.
    pub async fn search(
        &self,
        reference: &Reference,
        term: &str,
        limit: u32,
    ) -> Result<Vec<Found>, RegistryError> {
        let ask = self.channel.own(reference).await?;
        let base = match reference.registry() {
            "docker.io" => "https://index.docker.io",
            _ => ask.route.base.as_str(),
        };
        let mut url = reqwest::Url::parse(&format!("{base}/v1/search"))
            .map_err(|_| ask.refused(reqwest::StatusCode::BAD_REQUEST))?;
        url.query_pairs_mut().append_pair("q", term).append_pair("n", &limit.to_string());
        let response = ask.success(self.channel.send(&ask, url.as_str(), |http, url| http.get(url)).await?);
        let response = response.map_err(|error| match error {
            RegistryError::NotFound { .. } => RegistryError::NoSearch { registry: ask.host.clone() },
            error => error,
        })?;
        let bytes = read_small(reference, "what was found", response).await?.1;
        let answer: Answer = serde_json::from_slice(&bytes).map_err(|source| RegistryError::Malformed {
            what: "what was found",
            name: ask.host.clone(),
            source,
        })?;
        Ok(answer.results)
    }
}
