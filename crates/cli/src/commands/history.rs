//! `lapstrake history`

use std::process::ExitCode;

use lapstrake_ops::StackLayer;
use serde_json::json;

use super::images::ago;
use crate::args::images::History;
use crate::progress::bytes;
use crate::session::{self, config, find_image};

/// Shows how an image was made, newest first.
pub(crate) fn history(args: &History) -> anyhow::Result<ExitCode> {
    let session = session::open()?;
    let image = find_image(&session.store, &args.image)?;
    let config = config(&session.store, &image.id)?;
    let layers: Vec<StackLayer> = serde_json::from_str(&image.layers)?;
    let mut sizes = Vec::new();
    for layer in &layers {
        sizes.push(session.store.layer(&layer.id)?.map_or(0, |row| row.size));
    }
    let mut sizes = sizes.into_iter();
    let rows: Vec<_> = config
        .history
        .iter()
        .map(|row| (row, if row.empty_layer { 0 } else { sizes.next().unwrap_or(0) }))
        .collect();
    if !args.json {
        say!("{:<14} {:<16} {:<47} {:<9} COMMENT", "IMAGE", "CREATED", "CREATED BY", "SIZE");
    }
    for (number, (row, size)) in rows.iter().enumerate().rev() {
        let id = if number + 1 == rows.len() { image.id.short() } else { "<missing>" };
        if args.json {
            let by = &row.created_by;
            say!(
                "{}",
                json!({"ID": id, "CreatedAt": row.created, "CreatedBy": by, "Size": size, "Comment": row.comment})
            );
            continue;
        }
        let age = row.created.as_deref().map_or_else(|| "N/A".to_owned(), ago);
        let mut by = row.created_by.replace(['\t', '\n'], " ");
        if !args.no_trunc && by.chars().count() > 45 {
            by = by.chars().take(44).chain(['…']).collect();
        }
        say!("{id:<14} {age:<16} {by:<47} {:<9} {}", bytes(*size), row.comment);
    }
    Ok(ExitCode::SUCCESS)
}
