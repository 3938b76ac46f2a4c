//! Looking for images: the API of Docker Hub that `docker search` uses.

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
