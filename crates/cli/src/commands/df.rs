//! `lapstrake df`

use std::process::ExitCode;

use lapstrake_diag::Outcome;
use lapstrake_go::TabWriter;
use lapstrake_go::size::human as bytes;
use lapstrake_images::{ImageUsage, Usage, config, image_usage, usage};
use lapstrake_store::{Item, Store};
use serde_json::json;

use crate::args::space::Df;
use crate::rows::{Rows, ago};
use crate::session;

const HEADINGS: &[(&str, &str)] = &[
    ("Type", "TYPE"),
    ("TotalCount", "TOTAL"),
    ("Active", "ACTIVE"),
    ("Size", "SIZE"),
    ("Reclaimable", "RECLAIMABLE"),
];
const USUAL: &str = "{{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}";

/// Shows what takes room.
pub(crate) fn df(args: &Df) -> Outcome<ExitCode> {
    let session = session::open()?;
    let store = &*session.store;
    let items = store.items()?;
    let images = image_usage(store, &items)?;
    match (args.json, args.verbose) {
        (true, false) => {
            for row in usage(&items, &images) {
                say!(
                    "{}",
                    json!({"Type": row.kind, "TotalCount": row.total, "Active": row.active, "Size": row.size, "Reclaimable": row.reclaimable})
                );
            }
        }
        (true, true) => {
            let listed: Vec<_> = items.iter().map(item_json).collect();
            say!("{}", json!({"Images": images_json(store, &images)?, "BuildCache": listed}));
        }
        (false, false) => summary(&usage(&items, &images), args.format.as_deref())?,
        (false, true) => {
            list_images(store, &images)?;
            list_items(&items)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn summary(rows: &[Usage], format: Option<&str>) -> Outcome<()> {
    let row = |row: &Usage| {
        let percent = (row.reclaimable * 100).checked_div(row.size).unwrap_or(0);
        let free = format!("{} ({percent}%)", bytes(row.reclaimable));
        json!({"Type": row.kind, "TotalCount": row.total, "Active": row.active, "Size": bytes(row.size), "Reclaimable": free})
    };
    let rows = Rows { headings: HEADINGS, usual: USUAL, rows: rows.iter().map(row).collect() };
    Ok(crate::console::out(format_args!("{}", rows.text(format)?))?)
}

fn images_json(store: &Store, images: &[ImageUsage]) -> Outcome<Vec<serde_json::Value>> {
    let one = |image: &ImageUsage| {
        let created = config(store, &image.row.id)?.created;
        Ok(json!({
            "ID": image.row.id,
            "Names": image.names,
            "CreatedAt": created,
            "Size": image.size,
            "SharedSize": image.size - image.unique,
            "UniqueSize": image.unique,
        }))
    };
    images.iter().map(one).collect()
}

/// An item as JSON, with the names that buildx has for these things.
pub(super) fn item_json(item: &Item) -> serde_json::Value {
    let time = |seconds| lapstrake_oci::rfc3339(seconds, 0);
    json!({
        "ID": item.id,
        "Type": item.kind.name(),
        "Size": item.size,
        "CreatedAt": time(item.created),
        "LastUsedAt": time(item.used),
        "UsageCount": item.uses,
        "Shared": item.shared,
        "Description": item.description,
    })
}

/// The columns of Docker's `system df -v`.
const IMAGES: Columns = (
    &[
        ("Repository", "REPOSITORY"),
        ("Tag", "TAG"),
        ("ID", "IMAGE ID"),
        ("CreatedSince", "CREATED"),
        ("Size", "SIZE"),
        ("SharedSize", "SHARED SIZE"),
        ("UniqueSize", "UNIQUE SIZE"),
        ("Containers", "CONTAINERS"),
    ],
    "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}\t{{.SharedSize}}\t{{.UniqueSize}}\t{{.Containers}}",
);
const ITEMS: Columns = (
    &[
        ("ID", "CACHE ID"),
        ("CacheType", "CACHE TYPE"),
        ("Size", "SIZE"),
        ("CreatedSince", "CREATED"),
        ("LastUsedSince", "LAST USED"),
        ("UsageCount", "USAGE"),
        ("Shared", "SHARED"),
        ("Description", "DESCRIPTION"),
    ],
    "{{.ID}}\t{{.CacheType}}\t{{.Size}}\t{{.CreatedSince}}\t{{.LastUsedSince}}\t{{.UsageCount}}\t{{.Shared}}\t{{.Description}}",
);
/// Headings, and the template of a row.
type Columns = (&'static [(&'static str, &'static str)], &'static str);

fn table((headings, usual): Columns, rows: Vec<serde_json::Value>) -> Outcome<()> {
    Ok(crate::console::out(format_args!("{}", Rows { headings, usual, rows }.text(None)?))?)
}

fn list_images(store: &Store, images: &[ImageUsage]) -> Outcome<()> {
    let mut rows = Vec::new();
    for image in images {
        let created = config(store, &image.row.id)?.created;
        let running = u8::from(store.is_pinned(&image.row.id)?);
        let row = |(repository, tag): (&str, &str)| {
            json!({"Repository": repository, "Tag": tag, "ID": image.row.id.short(),
                "CreatedSince": ago(created.as_deref()), "Size": bytes(image.size),
                "SharedSize": bytes(image.size - image.unique), "UniqueSize": bytes(image.unique),
                "Containers": running})
        };
        rows.extend(image.names.iter().map(|name| row(name.rsplit_once(':').unwrap_or((name, "<none>")))));
        if image.names.is_empty() {
            rows.push(row(("<none>", "<none>")));
        }
    }
    say!("Images space usage:\n");
    table(IMAGES, rows)
}

fn list_items(items: &[Item]) -> Outcome<()> {
    let mut items: Vec<&Item> = items.iter().collect();
    items.sort_by_key(|item| (std::cmp::Reverse(item.used), std::cmp::Reverse(item.depth)));
    let total: u64 = items.iter().filter(|item| !item.shared).map(|item| item.size).sum();
    say!("\nBuild cache usage: {} (and the layers of images)\n", bytes(total));
    let since = |seconds| ago(Some(&lapstrake_oci::rfc3339(seconds, 0)));
    let row = |item: &Item| {
        json!({"ID": short(item), "CacheType": item.kind.name(), "Size": bytes(item.size),
            "CreatedSince": since(item.created), "LastUsedSince": since(item.used),
            "UsageCount": item.uses, "Shared": item.shared, "Description": described(item)})
    };
    table(ITEMS, items.into_iter().map(row).collect())
}

fn short(item: &Item) -> String {
    item.id.strip_prefix("sha256:").unwrap_or(&item.id).chars().take(12).collect()
}

fn described(item: &Item) -> String {
    let text: String = item.description.replace(['\n', '\t'], " ");
    if text.chars().count() > 60 { text.chars().take(59).chain(['…']).collect() } else { text }
}

/// Items as a table.
pub(super) fn listed(items: &[Item]) -> String {
    let headings = ["ID", "TYPE", "SIZE", "LAST USED", "SHARED", "DESCRIPTION"].map(str::to_owned);
    let row = |item: &Item| {
        let age = ago(Some(&lapstrake_oci::rfc3339(item.used, 0)));
        let (kind, shared) = (item.kind.name().to_owned(), item.shared.to_string());
        [short(item), kind, bytes(item.size), age, shared, described(item)]
    };
    let rows: Vec<_> = std::iter::once(headings).chain(items.iter().map(row)).collect();
    TabWriter::columns(&[15, 16, 10, 23, 8], 1).rows(&rows)
}
