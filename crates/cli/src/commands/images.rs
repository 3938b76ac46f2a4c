//! `lapstrake images`, `inspect`, `rmi`

use std::process::ExitCode;

use lapstrake_oci::Reference;
use lapstrake_store::{ImageRow, Store};
use serde_json::json;

use crate::args::images::{Images, Rmi};
use crate::progress::bytes;
use crate::session::{self, config, find_image};

/// The names of an image.
fn names(store: &Store, image: &ImageRow) -> anyhow::Result<Vec<Reference>> {
    let tags = store.tags()?.into_iter().filter(|tag| tag.image == image.id);
    Ok(tags.map(|tag| tag.reference).collect())
}

/// Lists images.
pub(crate) fn images(args: &Images) -> anyhow::Result<ExitCode> {
    let session = session::open()?;
    if !args.quiet && !args.json {
        say!("{:<28} {:<16} {:<14} {:<16} SIZE", "REPOSITORY", "TAG", "IMAGE ID", "CREATED");
    }
    for image in session.store.images()? {
        let created = config(&session.store, &image.id)?.created;
        let mut rows: Vec<(String, String)> = names(&session.store, &image)?
            .iter()
            .map(|name| (name.familiar_name(), name.tag().unwrap_or("<none>").to_owned()))
            .collect();
        if rows.is_empty() {
            rows.push(("<none>".to_owned(), "<none>".to_owned()));
        }
        for (repository, tag) in rows {
            let id = image.id.short();
            if args.quiet {
                say!("{id}");
            } else if args.json {
                let row = json!({"Repository": repository, "Tag": tag, "ID": image.id, "CreatedAt": created, "Size": image.size});
                say!("{row}");
            } else {
                let age = created.as_deref().map_or_else(|| "N/A".to_owned(), ago);
                say!("{repository:<28} {tag:<16} {id:<14} {age:<16} {}", bytes(image.size));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// How long ago an RFC 3339 time was, in the words that Docker uses.
pub(crate) fn ago(time: &str) -> String {
    let Ok(then) = time.parse::<jiff::Timestamp>() else { return "N/A".to_owned() };
    let seconds = (jiff::Timestamp::now().as_second() - then.as_second()).max(0);
    let many = |count: i64, unit: &str| format!("{count} {unit}{} ago", if count == 1 { "" } else { "s" });
    match seconds {
        0..60 => many(seconds, "second"),
        60..3600 => many(seconds / 60, "minute"),
        3600..172_800 => many(seconds / 3600, "hour"),
        172_800..1_209_600 => many(seconds / 86_400, "day"),
        1_209_600..5_184_000 => many(seconds / 604_800, "week"),
        5_184_000..63_072_000 => many(seconds / 2_592_000, "month"),
        _ => many(seconds / 31_536_000, "year"),
    }
}

/// Shows an image's config.
pub(crate) fn inspect(name: &str) -> anyhow::Result<ExitCode> {
    let session = session::open()?;
    let image = find_image(&session.store, name)?;
    let config = config(&session.store, &image.id)?;
    let names: Vec<String> = names(&session.store, &image)?.iter().map(Reference::familiar).collect();
    let shown = json!([{
        "Id": image.id,
        "RepoTags": names,
        "Created": config.created,
        "Author": config.author,
        "Architecture": config.architecture,
        "Os": config.os,
        "Size": image.size,
        "Config": config.config,
        "RootFS": {"Type": config.rootfs.kind, "Layers": config.rootfs.diff_ids},
    }]);
    say!("{}", String::from_utf8_lossy(&lapstrake_oci::to_json_indented(&shown)));
    Ok(ExitCode::SUCCESS)
}

/// Removes images, or names of them.
pub(crate) fn rmi(args: &Rmi) -> anyhow::Result<ExitCode> {
    let session = session::open()?;
    for name in &args.images {
        let image = find_image(&session.store, name)?;
        let own = names(&session.store, &image)?;
        let named = name.parse::<Reference>().ok().filter(|reference| own.contains(reference));
        match named {
            Some(reference) if own.len() > 1 && !args.force => {
                session.store.untag(&reference)?;
                say!("Untagged: {}", reference.familiar());
            }
            None if own.len() > 1 && !args.force => {
                anyhow::bail!(
                    "image {} has more than one name: name one of them, or use --force",
                    image.id.short()
                );
            }
            _ => {
                session.store.remove_image(&image.id)?;
                for name in &own {
                    say!("Untagged: {}", name.familiar());
                }
                say!("Deleted: {}", image.id);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
