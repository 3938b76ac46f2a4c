//! Which layers records and images need.
//!
//! A *stack* is the layers of a result, lowest first. `stacks` has a row for each stack: its top layer and the row of the
//! stack below it. Results of a chain of steps share rows, so a step adds one row, however long the chain is. A record
//! names its stack; 0 is the stack without layers. Every row of `stacks` has a record, or has a row on it that does.
//! `image_layers` lists the layers of images, one row each.
//!
//! A layer may be changes to another one, its base (see [`crate::delta_layers`]). What needs the layer needs the base.

use std::collections::BTreeSet;

use rusqlite::{Connection, OptionalExtension as _, Transaction, params};

use crate::layer_id::{LayerId, StackLayer};

/// The tables and indexes, as version 9 of the database has them.
pub(crate) const TABLES: &str = "
CREATE TABLE stacks (id INTEGER PRIMARY KEY, layer TEXT NOT NULL, below INTEGER NOT NULL, depth INTEGER NOT NULL);
CREATE UNIQUE INDEX stacks_by_layer ON stacks (layer, below);
CREATE INDEX stacks_by_below ON stacks (below);
CREATE TABLE records (key BLOB PRIMARY KEY, created INTEGER NOT NULL, stack INTEGER NOT NULL, step TEXT, value BLOB NOT NULL) WITHOUT ROWID;
CREATE INDEX records_by_stack ON records (stack, step);
CREATE TABLE image_layers (image TEXT NOT NULL, position INTEGER NOT NULL, layer TEXT NOT NULL, diff_id TEXT, clamp INTEGER, PRIMARY KEY (image, position)) WITHOUT ROWID;
CREATE INDEX image_layers_by_layer ON image_layers (layer, image);
CREATE INDEX images_by_manifest ON images (manifest) WHERE manifest IS NOT NULL;
CREATE INDEX diffs_by_layer ON diffs (layer);
CREATE INDEX blobs_by_digest ON blobs (digest);
";

/// The stack without layers.
const EMPTY: i64 = 0;

/// SQL: whether an image needs the layer `id`, which is a parameter or a column.
pub(crate) fn image_needs(id: &str) -> String {
    format!(
        "(EXISTS (SELECT 1 FROM image_layers WHERE image_layers.layer = {id}) OR EXISTS \
         (SELECT 1 FROM layers AS patch CROSS JOIN image_layers ON image_layers.layer = patch.id WHERE patch.base = {id}))"
    )
}

/// SQL: whether a record needs the layer `id`, which is a parameter or a column.
pub(crate) fn record_needs(id: &str) -> String {
    format!(
        "(EXISTS (SELECT 1 FROM stacks WHERE stacks.layer = {id}) OR EXISTS \
         (SELECT 1 FROM layers AS patch CROSS JOIN stacks ON stacks.layer = patch.id WHERE patch.base = {id}))"
    )
}

/// The records that need the layer `?1`, with their stacks: those on a stack that has it, at any height.
pub(crate) const RECORDS_NEEDING: &str = "
WITH RECURSIVE needing (id) AS (
  SELECT stacks.id FROM stacks WHERE stacks.layer = ?1
  UNION
  SELECT stacks.id FROM layers AS patch CROSS JOIN stacks ON stacks.layer = patch.id WHERE patch.base = ?1
  UNION
  SELECT stacks.id FROM needing CROSS JOIN stacks ON stacks.below = needing.id)
SELECT records.key, records.stack FROM needing CROSS JOIN records ON records.stack = needing.id";

/// The images that need the layer `?1`.
pub(crate) const IMAGES_NEEDING: &str = "
SELECT id FROM images WHERE id IN (
  SELECT image FROM image_layers WHERE layer = ?1
  UNION
  SELECT image FROM layers AS patch CROSS JOIN image_layers ON image_layers.layer = patch.id WHERE patch.base = ?1)
ORDER BY stored DESC, id";

/// The row of the stack of these layers, lowest first; made if it is not there.
pub(crate) fn stack_of<'a>(
    change: &Transaction<'_>,
    layers: impl IntoIterator<Item = &'a LayerId>,
) -> rusqlite::Result<i64> {
    let mut find = change.prepare_cached("SELECT id FROM stacks WHERE layer = ?1 AND below = ?2")?;
    let mut top = EMPTY;
    for (layer, depth) in layers.into_iter().zip(1_i64..) {
        let found = find.query_row(params![layer.as_str(), top], |row| row.get(0)).optional()?;
        top = match found {
            Some(id) => id,
            None => {
                change
                    .prepare_cached("INSERT INTO stacks (layer, below, depth) VALUES (?1, ?2, ?3)")?
                    .execute(params![layer.as_str(), top, depth])?;
                change.last_insert_rowid()
            }
        };
    }
    Ok(top)
}

/// The stack of a record, if there is the record.
pub(crate) fn stack_of_record(change: &Transaction<'_>, key: &[u8]) -> rusqlite::Result<Option<i64>> {
    change
        .prepare_cached("SELECT stack FROM records WHERE key = ?1")?
        .query_row([key], |row| row.get(0))
        .optional()
}

/// Removes a stack that lost a record, and what is below it, as far as no other record is on it. Adds the layers of the
/// removed rows to `freed`: other stacks may have them too.
pub(crate) fn release_stack(
    change: &Transaction<'_>,
    stack: i64,
    freed: &mut BTreeSet<String>,
) -> rusqlite::Result<()> {
    let mut remove = change.prepare_cached(
        "DELETE FROM stacks WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM records WHERE stack = ?1) \
         AND NOT EXISTS (SELECT 1 FROM stacks AS above WHERE above.below = ?1) RETURNING layer, below",
    )?;
    let mut top = stack;
    while top != EMPTY {
        let removed: Option<(String, i64)> =
            remove.query_row([top], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
        let Some((layer, below)) = removed else { break };
        freed.insert(layer);
        top = below;
    }
    Ok(())
}

/// The layers of an image, lowest first.
pub(crate) fn image_layers(db: &Connection, image: &str) -> rusqlite::Result<Vec<StackLayer>> {
    db.prepare_cached("SELECT layer, diff_id, clamp FROM image_layers WHERE image = ?1 ORDER BY position")?
        .query_map([image], |row| image_layer(row, 0))?
        .collect()
}

/// A layer of an image from three columns, the first of them at `column`.
pub(crate) fn image_layer(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<StackLayer> {
    let diff_id: Option<String> = row.get(column + 1)?;
    Ok(StackLayer {
        id: parsed(column, &row.get::<_, String>(column)?)?,
        diff_id: diff_id.map(|text| parsed(column + 1, &text)).transpose()?.map(lapstrake_oci::DiffId),
        clamp: row.get(column + 2)?,
    })
}

/// Replaces the layers of an image. Says whether that changed anything.
pub(crate) fn put_image_layers(
    change: &Transaction<'_>,
    image: &str,
    layers: &[StackLayer],
) -> rusqlite::Result<bool> {
    if image_layers(change, image)? == layers {
        return Ok(false);
    }
    change.prepare_cached("DELETE FROM image_layers WHERE image = ?1")?.execute([image])?;
    let mut insert = change.prepare_cached(
        "INSERT INTO image_layers (image, position, layer, diff_id, clamp) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?;
    for (layer, position) in layers.iter().zip(0_i64..) {
        let diff_id = layer.diff_id.as_ref().map(ToString::to_string);
        insert.execute(params![image, position, layer.id.as_str(), diff_id, layer.clamp])?;
    }
    Ok(true)
}

/// A value that a column has as text.
pub(crate) fn parsed<T: std::str::FromStr>(column: usize, text: &str) -> rusqlite::Result<T>
where
    T::Err: std::error::Error + Send + Sync + 'static,
{
    text.parse().map_err(|error: T::Err| {
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(error))
    })
}

#[cfg(test)]
mod tests;
