//! The tags of a repository.

use lapstrake_oci::Reference;
use reqwest::header::LINK;
use serde::Deserialize;

use crate::ask::Ask;
use crate::body::read_small;
use crate::client::Client;
use crate::error::RegistryError;

/// How many pages of tags are read: registries give a hundred or a thousand tags with each.
const PAGES: u32 = 1000;

#[derive(Deserialize)]
struct Answer {
    /// `null` in a repository that has none any more.
    #[serde(default)]
    tags: Option<Vec<String>>,
}

impl Client {
    /// All tags that `reference`'s repository has, in the registry's order.
    ///
    /// # Errors
    /// [`RegistryError`]: it cannot be reached, does not have the repository, or sends something else.
    pub async fn tags(&self, reference: &Reference) -> Result<Vec<String>, RegistryError> {
        let own = self.channel.own(reference).await?;
        let ask = Ask::pull(reference, own.route);
        let (mut all, mut url) = (Vec::new(), ask.url("tags/list"));
        for _ in 0..PAGES {
            let response = self.channel.send(&ask, &url, |http, url| http.get(url)).await?;
            let response = ask.success(response)?;
            let link = response.headers().get(LINK).and_then(|value| next(value.to_str().ok()?));
            let next = link.and_then(|link| reqwest::Url::parse(&url).ok()?.join(link).ok());
            let bytes = read_small(reference, "the list of tags", response).await?.1;
            let answer: Answer = serde_json::from_slice(&bytes).map_err(|source| {
                RegistryError::Malformed { what: "the list of tags", name: reference.familiar_name(), source }
            })?;
            all.extend(answer.tags.unwrap_or_default());
            // Another place may have other tags of that name.
            match next.filter(|next| ask.is_own(next.as_str())) {
                Some(next) => url = next.to_string(),
                None => break,
            }
        }
        Ok(all)
    }
}

/// Where a `Link` header says that there is more.
fn next(link: &str) -> Option<&str> {
    link.split(',').find_map(|part| {
        let (address, relation) = part.trim().strip_prefix('<')?.split_once('>')?;
        let is_next = relation.split(';').any(|word| matches!(word.trim(), "rel=next" | "rel=\"next\""));
        is_next.then_some(address)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_is_where_the_link_says() {
        assert_eq!(next("</v2/x/tags/list?last=b&n=2>; rel=\"next\""), Some("/v2/x/tags/list?last=b&n=2"));
        assert_eq!(next("<a>; rel=prev, <b>; x=y; rel=next"), Some("b"));
        assert_eq!(next("<a>; rel=\"last\""), None);
        assert_eq!(next("a"), None);
    }
}
