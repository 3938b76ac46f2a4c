//! The image config: the draft, its layers, and the times of its history.

use lapstrake_diag::{Code, Reported};
use lapstrake_go::to_json;
use lapstrake_graph::ImageDraft;
use lapstrake_oci::{DiffId, History, ImageConfig, rfc3339, seconds_of};

use crate::Document;

/// A layer of the result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// The digest of the layer's tar.
    pub diff_id: DiffId,
    /// When it was made, seconds since the Unix epoch.
    pub created: i64,
}

/// Why there can be no config.
#[derive(Debug, thiserror::Error, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum AssembleError {
    /// Fewer layers than the draft says.
    #[error("the result has {found} layers, and its history tells of {expected}")]
    MissingLayers {
        /// How many there are.
        found: usize,
        /// How many there should be.
        expected: usize,
    },
}

const COMMENT: &str = "buildkit.dockerfile.v0";
const FILLED: &str = "buildkit.exporter.image.v0";

/// The config of an image made of `layers` (the base's included, lowest first).
///
/// A row of history with a layer has that layer's time; one without has the time of the next layer, else of the one
/// before, else of the base. If the draft has an epoch, that is the time of every new row.
pub fn image_config(draft: &ImageDraft, layers: &[Layer]) -> Result<(ImageConfig, Document), AssembleError> {
    if draft.is_complete {
        return Ok(complete_config(draft, layers));
    }
    let base = draft.config.rootfs.diff_ids.len();
    let told = draft.history.iter().filter(|row| row.layer.is_some()).count();
    let new = layers.len().checked_sub(base).filter(|new| *new >= told);
    let Some(new) = new else {
        return Err(AssembleError::MissingLayers { found: layers.len(), expected: base + told });
    };
    let time =
        |layer: &Layer| rfc3339(draft.epoch.map_or(layer.created, |epoch| layer.created.min(epoch)), 0);
    let mut config = draft.config.clone();
    let filled = |layer: &Layer| History {
        created: Some(time(layer)),
        comment: FILLED.to_owned(),
        ..History::default()
    };
    // A base may tell of more layers than it has, or of fewer: each layer has its row, and no row has another's.
    let mut left = base;
    for row in config.history.iter_mut().filter(|row| !row.empty_layer) {
        match left.checked_sub(1) {
            Some(less) => left = less,
            None => row.empty_layer = true,
        }
    }
    config.history.extend(layers[base - left..base].iter().map(filled));
    // Layers that no row tells of (a directory as a base) lie directly on the base.
    let (untold, new_layers) = layers[base..].split_at(new - told);
    config.history.extend(untold.iter().map(filled));
    let mut last = config.history.last().and_then(|row| row.created.clone()).or(draft.config.created.clone());
    let mut ahead = new_layers.iter();
    for row in &draft.history {
        let of_layer = match row.layer {
            Some(_) => ahead.next().map(time),
            None => ahead.as_slice().first().map(time),
        };
        let created = draft.epoch.map(|epoch| rfc3339(epoch, 0)).or(of_layer);
        last = created.or(last);
        config.history.push(History {
            created: Some(last.clone().unwrap_or_else(|| rfc3339(0, 0))),
            created_by: row.created_by.clone(),
            comment: COMMENT.to_owned(),
            empty_layer: row.layer.is_none(),
            ..History::default()
        });
    }
    config.rootfs.diff_ids = layers.iter().map(|layer| layer.diff_id.clone()).collect();
    config.created = config.history.last().and_then(|row| row.created.clone());
    let document = Document::new(to_json(&config));
    Ok((config, document))
}

/// The config of an image whose draft has the whole history. Each layer gets a row, and no row has a layer too many.
fn complete_config(draft: &ImageDraft, layers: &[Layer]) -> (ImageConfig, Document) {
    let clamped = |seconds: i64| draft.epoch.map_or(seconds, |epoch| seconds.min(epoch));
    let mut config = draft.config.clone();
    let told = config.history.iter().filter(|row| !row.empty_layer).count();
    // Rows without a layer are those from the beginning.
    let surplus = told.saturating_sub(layers.len());
    config
        .history
        .iter_mut()
        .filter(|row| !row.empty_layer)
        .take(surplus)
        .for_each(|row| row.empty_layer = true);
    let untold = layers.iter().skip(told).map(|layer| History {
        created: Some(rfc3339(clamped(layer.created), 0)),
        comment: FILLED.to_owned(),
        ..History::default()
    });
    config.history.extend(untold);
    let mut of_layers = layers.iter();
    for row in config.history.iter_mut().filter(|row| !row.empty_layer) {
        let made = of_layers.next().map(|layer| rfc3339(clamped(layer.created), 0));
        let late = |text: &String| seconds_of(text).is_some_and(|seconds| clamped(seconds) != seconds);
        if row.created.as_ref().is_none_or(late) {
            row.created = made;
        }
    }
    // A row without a time has that of the next one, or else of the one before.
    let mut next = None;
    for row in config.history.iter_mut().rev() {
        next = row.created.clone().or(next);
        row.created.clone_from(&next);
    }
    let mut last: Option<String> = None;
    for row in &mut config.history {
        last = row.created.clone().or(last);
        row.created.clone_from(&last);
    }
    config.rootfs.diff_ids = layers.iter().map(|layer| layer.diff_id.clone()).collect();
    let epoch = draft.epoch.map(|epoch| rfc3339(epoch, 0));
    config.created = epoch.or(config.created).or(last);
    let document = Document::new(to_json(&config));
    (config, document)
}

impl Reported for AssembleError {
    fn code(&self) -> Code {
        Code::new("assemble", self.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lapstrake_graph::{Graph, HistoryDraft, Op, Source, VertexMeta};
    use lapstrake_oci::Digest;

    fn draft(rows: &[bool]) -> ImageDraft {
        let step = Graph::new().add(Op::Source(Source::Scratch), vec![], VertexMeta::default()).unwrap();
        let history = rows
            .iter()
            .map(|layer| HistoryDraft { created_by: "X".into(), layer: layer.then_some(step) })
            .collect();
        ImageDraft { config: ImageConfig::default(), is_complete: false, history, epoch: None }
    }

    fn layer(name: &str, created: i64) -> Layer {
        Layer { diff_id: DiffId(Digest::sha256(name.as_bytes())), created }
    }

    #[test]
    fn empty_rows_take_the_time_of_the_next_layer_or_the_one_before() {
        let layers = [layer("a", 10), layer("b", 20)];
        let (config, _) = image_config(&draft(&[false, true, false, true, false]), &layers).unwrap();
        let times: Vec<_> = config.history.iter().map(|row| row.created.clone().unwrap()).collect();
        assert_eq!(times, [10, 10, 20, 20, 20].map(|s| rfc3339(s, 0)));
        assert_eq!(config.created, Some(rfc3339(20, 0)));
    }

    #[test]
    fn the_epoch_is_the_time_of_new_rows() {
        let mut draft = draft(&[true, false]);
        draft.epoch = Some(5);
        let (config, _) = image_config(&draft, &[layer("a", 10)]).unwrap();
        assert!(config.history.iter().all(|row| row.created == Some(rfc3339(5, 0))));
        draft.epoch = Some(50);
        let (config, _) = image_config(&draft, &[layer("a", 10)]).unwrap();
        assert_eq!(config.created, Some(rfc3339(50, 0)));
        // On a base that is older.
        draft.history.remove(0);
        draft.config.created = Some(rfc3339(7, 0));
        let (config, _) = image_config(&draft, &[]).unwrap();
        assert_eq!(config.created, Some(rfc3339(50, 0)));
    }

    /// A history that a client has made: with rows too many, and too few.
    #[test]
    fn whole_histories_are_fitted() {
        let row = |empty_layer| History { empty_layer, ..History::default() };
        let layers = [layer("a", 10), layer("b", 20)];
        for (history, empty) in [
            (vec![row(false), row(true), row(false), row(false)], vec![true, true, false, false]),
            (vec![row(true)], vec![true, false, false]),
        ] {
            let mut draft = draft(&[]);
            (draft.is_complete, draft.config.history) = (true, history);
            let (config, _) = image_config(&draft, &layers).unwrap();
            assert_eq!(config.history.iter().map(|row| row.empty_layer).collect::<Vec<_>>(), empty);
            assert!(config.history.iter().all(|row| row.created.is_some()));
            assert_eq!((config.rootfs.diff_ids.len(), config.created), (2, Some(rfc3339(20, 0))));
        }
    }

    #[test]
    fn layers_and_history_agree() {
        let error = image_config(&draft(&[true, true]), &[layer("a", 1)]).unwrap_err();
        assert_eq!(error, AssembleError::MissingLayers { found: 1, expected: 2 });
        let (config, _) = image_config(&draft(&[true]), &[layer("dir", 1), layer("a", 2)]).unwrap();
        assert_eq!(config.history.iter().filter(|row| !row.empty_layer).count(), 2);
    }

    /// Bases without history, with too little of it, and with too much.
    #[test]
    fn rows_are_those_of_the_layers() {
        let row = |empty_layer| History { empty_layer, ..History::default() };
        for history in
            [vec![], vec![row(true)], vec![row(false)], vec![row(false); 5], vec![row(true), row(false)]]
        {
            let mut draft = draft(&[true, false]);
            draft.config.rootfs.diff_ids = [layer("a", 1).diff_id, layer("b", 2).diff_id].into();
            draft.config.history = history;
            let layers = [layer("a", 1), layer("b", 2), layer("c", 3)];
            let (config, _) = image_config(&draft, &layers).unwrap();
            assert_eq!(
                config.history.iter().filter(|row| !row.empty_layer).count(),
                3,
                "{:?}",
                config.history
            );
            let last = &config.history[config.history.len() - 2..];
            assert_eq!((last[0].created_by.as_str(), last[1].empty_layer), ("X", true));
        }
    }
}
