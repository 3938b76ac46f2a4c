//! Sources.

use lapstrake_graph::{Edge, Git, Http, Op, Source};
use lapstrake_oci::{Digest, Platform};
use lapstrake_proto::pb;

use crate::definition::Definition;
use crate::error::LlbError;
use crate::local::LocalSource;
use crate::lower::{Answers, Lowering, This};

/// An image that a definition names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageQuestion {
    /// The digest of the op, by which [`Answers`] has the image.
    pub op: Digest,
    /// The reference as the client has written it.
    pub reference: String,
    /// The platform that is asked for; `None` for the default.
    pub platform: Option<Platform>,
    /// How far the registry is asked.
    pub mode: ResolveMode,
    /// The digest that the manifest must have; empty for any.
    pub checksum: String,
    /// The number of layers that are used, from the lowest; 0 for all.
    pub layer_limit: usize,
    /// The client's OCI layout that has the image; `None` for one in a registry.
    pub layout: Option<ClientLayout>,
}

/// A content store of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientLayout {
    /// The session that has it; empty for the session of the build.
    pub session: String,
    /// The name of the store.
    pub store: String,
}

impl ClientLayout {
    /// The store that a source with the reference `reference` is in.
    pub fn of(source: &pb::SourceOp, reference: &str) -> ClientLayout {
        let attr = |key: &str| source.attrs.get(key).cloned().filter(|value| !value.is_empty());
        let name = reference.split('@').next().unwrap_or(reference);
        ClientLayout {
            session: attr("oci.session").unwrap_or_default(),
            store: attr("oci.store").unwrap_or_else(|| name.to_owned()),
        }
    }
}

/// How far the registry of an image is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ResolveMode {
    /// If the image is not here.
    #[default]
    Default,
    /// Always.
    Pull,
}

impl Definition {
    /// The images that have to be known before the definition can be lowered.
    ///
    /// # Errors
    /// An attribute that cannot be.
    pub fn images(&self) -> Result<Vec<ImageQuestion>, LlbError> {
        let mut found = Vec::new();
        for digest in &self.order {
            let Some(op) = self.ops.get(digest) else { continue };
            let Some(pb::op::Op::Source(source)) = &op.op else { continue };
            let (reference, layout) = match source.identifier.split_once("://") {
                Some(("docker-image", reference)) => (reference, None),
                Some(("oci-layout", reference)) => (reference, Some(ClientLayout::of(source, reference))),
                _ => continue,
            };
            let this = This { digest, op, inputs: Vec::new(), meta: lapstrake_graph::VertexMeta::default() };
            let named = op.platform.as_ref().is_some_and(|platform| !platform.os.is_empty());
            let attr = |key: &str| source.attrs.get(key).map(String::as_str).unwrap_or_default();
            let limit = attr(if layout.is_some() { "oci.layerlimit" } else { "image.layerlimit" });
            found.push(ImageQuestion {
                op: digest.clone(),
                reference: reference.to_owned(),
                platform: named.then(|| this.platform(&Answers::default())),
                mode: match attr("image.resolvemode") {
                    "" | "default" | "local" => ResolveMode::Default,
                    "pull" => ResolveMode::Pull,
                    other => return Err(this.invalid(format!("invalid resolvemode: {other}"))),
                },
                checksum: attr("image.checksum").to_owned(),
                layer_limit: match limit {
                    "" => 0,
                    text => match text.parse() {
                        Ok(limit) if limit > 0 => limit,
                        _ => return Err(this.invalid(format!("invalid layer limit {text}"))),
                    },
                },
                layout,
            });
        }
        Ok(found)
    }
}

impl Lowering<'_> {
    /// A source as a vertex.
    pub(crate) fn source(&mut self, this: &This<'_>, source: &pb::SourceOp) -> Result<Edge, LlbError> {
        let (scheme, rest) = source
            .identifier
            .split_once("://")
            .ok_or_else(|| this.invalid(format!("failed to parse identifier: {}", source.identifier)))?;
        let source = match scheme {
            "docker-image" | "oci-layout" => {
                let known = self.answers.images.get(this.digest).cloned();
                known.ok_or_else(|| this.invalid(format!("the image {rest} is not known")))?
            }
            "local" => self.local(this, rest, source)?,
            "git" => Source::Git(git(this, rest, source)?),
            "http" | "https" => Source::Http(http(this, source)?),
            other => return Err(this.unsupported(format!("the source scheme `{other}`"))),
        };
        Ok(self.graph.add(Op::Source(source), Vec::new(), this.meta.clone())?.into())
    }

    fn local(&mut self, this: &This<'_>, name: &str, source: &pb::SourceOp) -> Result<Source, LlbError> {
        let mut local = LocalSource { name: name.to_owned(), ..LocalSource::default() };
        let list = |text: &str| {
            serde_json::from_str::<Vec<String>>(text).map_err(|error| this.invalid(error.to_string()))
        };
        for (key, value) in &source.attrs {
            match key.as_str() {
                "local.session" if *value != self.answers.session => local.session.clone_from(value),
                "local.includepattern" => local.include = list(value)?,
                "local.excludepatterns" => local.exclude = list(value)?,
                "local.followpaths" => local.follow = list(value)?,
                "local.sharedkeyhint" => local.shared_key.clone_from(value),
                "local.differ" => local.all_again = value == "none",
                // A unique name keeps builds of one client apart, which sessions do here.
                "local.session" | "local.unique" => {}
                other => return Err(this.unsupported(format!("the attribute `{other}`"))),
            }
        }
        let key = local.key();
        self.locals.insert(key.clone(), local);
        Ok(Source::Local { name: key })
    }
}

/// A source that is elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RemoteSource {
    /// A commit.
    Git(Git),
    /// A file of the web.
    Http(Http),
}

/// The source `source`, if it is of git or the web.
///
/// # Errors
/// An attribute that cannot be.
pub fn remote_source(source: &pb::SourceOp) -> Result<Option<RemoteSource>, LlbError> {
    let op = pb::Op { op: Some(pb::op::Op::Source(source.clone())), ..pb::Op::default() };
    let digest = Digest::sha256(&prost::Message::encode_to_vec(&op));
    let meta = lapstrake_graph::VertexMeta::default();
    let this = This { digest: &digest, op: &op, inputs: Vec::new(), meta };
    Ok(match source.identifier.split_once("://") {
        Some(("git", rest)) => Some(RemoteSource::Git(git(&this, rest, source)?)),
        Some(("http" | "https", _)) => Some(RemoteSource::Http(http(&this, source)?)),
        _ => None,
    })
}

fn is_true(value: &str) -> bool {
    matches!(value, "true" | "1")
}

fn git(this: &This<'_>, rest: &str, source: &pb::SourceOp) -> Result<Git, LlbError> {
    let (path, fragment) = rest.split_once('#').unwrap_or((rest, ""));
    let (reference, subdir) = fragment.split_once(':').unwrap_or((fragment, ""));
    let mut git = Git {
        remote: format!("https://{path}"),
        reference: reference.to_owned(),
        subdir: subdir.to_owned(),
        checksum: String::new(),
        fetch_by_commit: false,
        keep_git_dir: false,
        submodules: true,
        commit_times: false,
    };
    for (key, value) in &source.attrs {
        match key.as_str() {
            "git.fullurl" => git.remote.clone_from(value),
            "git.keepgitdir" => git.keep_git_dir = is_true(value),
            "git.checksum" => git.checksum.clone_from(value),
            "git.skipsubmodules" => git.submodules = !is_true(value),
            "git.fetchbycommit" => git.fetch_by_commit = is_true(value),
            "git.mtime" => git.commit_times = value == "commit",
            "git.authheadersecret" if value == "GIT_AUTH_HEADER" => {}
            "git.authtokensecret" if value == "GIT_AUTH_TOKEN" => {}
            "git.mountsshsock" if value == "default" => {}
            "git.knownsshhosts" => {}
            other => {
                return Err(this.unsupported(format!("the attribute `{other}` with the value `{value}`")));
            }
        }
    }
    Ok(git)
}

fn http(this: &This<'_>, source: &pb::SourceOp) -> Result<Http, LlbError> {
    let url = &source.identifier;
    let path = url.split(['?', '#']).next().unwrap_or(url);
    let path = path.split_once("://").map_or("", |(_, rest)| rest);
    let name = path.split_once('/').and_then(|(_, path)| path.rsplit('/').next());
    let mut http = Http {
        url: url.clone(),
        name: name.filter(|name| !name.is_empty()).unwrap_or("download").to_owned(),
        ..Http::default()
    };
    http.options.named_by_server = !source.attrs.contains_key("http.filename");
    let number = |text: &str| text.parse::<u32>().map_err(|_| this.invalid(format!("`{text}` is no number")));
    let (mut uid, mut gid) = (None, None);
    for (key, value) in &source.attrs {
        match key.as_str() {
            "http.checksum" => {
                http.checksum =
                    Some(value.parse().map_err(|_| this.invalid(format!("`{value}` is no digest")))?);
            }
            "http.filename" => {
                if value.contains('/') || matches!(value.as_str(), "" | "." | "..") {
                    return Err(this.invalid(format!("`{value}` is no file name")));
                }
                http.name.clone_from(value);
            }
            "http.perm" => {
                let digits = value.strip_prefix("0o").unwrap_or(value);
                let mode = u32::from_str_radix(digits, 8);
                http.options.mode =
                    Some(mode.map_err(|_| this.invalid(format!("`{value}` is no mode")))? & 0o7777);
            }
            "http.authheadersecret" => http.options.authorization_secret.clone_from(value),
            "http.header.accept" | "http.header.user-agent" => {
                let name = key.trim_start_matches("http.header.");
                http.options.headers.push((name.to_owned(), value.clone()));
            }
            "http.uid" => uid = Some(number(value)?),
            "http.gid" => gid = Some(number(value)?),
            other => return Err(this.unsupported(format!("the attribute `{other}`"))),
        }
    }
    if uid.is_some() || gid.is_some() {
        http.options.owner = Some((uid.unwrap_or(0), gid.unwrap_or(0)));
    }
    Ok(http)
}
