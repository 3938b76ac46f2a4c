//! `lapstrake history`

use std::process::ExitCode;

use lapstrake_diag::Outcome;
use lapstrake_go::size::human as size;
use lapstrake_images::{find_for, history as history_of};
use serde_json::json;

use crate::args::images::History;
use crate::rows::{Rows, ago, rfc3339, shortened};
use crate::session;

const HEADINGS: &[(&str, &str)] = &[
    ("ID", "IMAGE"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("CreatedBy", "CREATED BY"),
    ("Size", "SIZE"),
    ("Comment", "COMMENT"),
];
const USUAL: &str = "{{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}";
const EXACT: &str = "{{.ID}}\t{{.CreatedAt}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}";
const WIDTH: usize = 45;

/// Shows how an image was made, newest first.
pub(crate) fn history(args: &History) -> Outcome<ExitCode> {
    let session = session::open()?;
    let image = find_for(&session.store, &args.image, args.platform.as_deref())?;
    let rows = history_of(&session.store, &image)?;
    let mut shown = Vec::new();
    for (number, (row, bytes)) in rows.iter().enumerate().rev() {
        let last = number + 1 == rows.len();
        let id = match (last, args.no_trunc) {
            (true, true) => image.id.to_string(),
            (true, false) => image.id.short().to_owned(),
            (false, _) => "<missing>".to_owned(),
        };
        if args.quiet {
            say!("{id}");
            continue;
        }
        let (created, by) = (row.created.as_deref(), row.created_by.replace(['\t', '\n'], " "));
        if args.json {
            say!(
                "{}",
                json!({"ID": id, "CreatedAt": created, "CreatedBy": row.created_by, "Size": bytes, "Comment": row.comment})
            );
            continue;
        }
        let by = if args.no_trunc { by } else { shortened(&by, WIDTH) };
        let size = if args.human { size(*bytes) } else { bytes.to_string() };
        shown.push(json!({"ID": id, "CreatedSince": ago(created), "CreatedAt": rfc3339(created),
            "CreatedBy": by, "Size": size, "Comment": row.comment}));
    }
    if !args.quiet && !args.json {
        let rows = Rows { headings: HEADINGS, usual: if args.human { USUAL } else { EXACT }, rows: shown };
        crate::console::out(format_args!("{}", rows.text(args.format.as_deref())?))?;
    }
    Ok(ExitCode::SUCCESS)
}
