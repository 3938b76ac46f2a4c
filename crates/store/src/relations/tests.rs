//! What SQLite does for these queries, and what garbage collection keeps.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use lapstrake_oci::Digest;
use proptest::prelude::*;

use super::*;
use crate::orphans::HAS_TAR;
use crate::{ImageRow, LayerSize, RecordOf, Store};

/// How SQLite carries out a query: a line for each table or index that it reads.
fn plan(store: &Store, query: &str) -> Vec<String> {
    let values = vec![""; store.with_db(|db| Ok(db.prepare(query)?.parameter_count())).unwrap()];
    store
        .with_db(|db| {
            db.prepare(&format!("EXPLAIN QUERY PLAN {query}"))?
                .query_map(rusqlite::params_from_iter(values), |row| row.get(3))?
                .collect()
        })
        .unwrap()
}

#[test]
fn what_needs_a_layer_is_found_by_indexes() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(&root.path().join("s")).unwrap();
    let needs = [record_needs("?1"), image_needs("?1")].map(|needs| format!("SELECT {needs}"));
    for query in [RECORDS_NEEDING, IMAGES_NEEDING, HAS_TAR, &needs[0], &needs[1]] {
        let plan = plan(&store, query);
        let scanned: Vec<_> =
            plan.iter().filter(|line| line.starts_with("SCAN ") && !line.contains("SCAN needing")).collect();
        // Only constant rows and what a part of the query has found are gone through as a whole.
        assert!(scanned.iter().all(|line| line.contains("CONSTANT ROW")), "{query}:\n{plan:#?}");
        assert!(plan.iter().any(|line| line.contains("USING") && line.contains("INDEX")), "{plan:#?}");
    }
    // A list of all layers looks up each of them in the same way, and reads the value of no record.
    let list = format!("SELECT id, {}, {} FROM layers", record_needs("layers.id"), image_needs("layers.id"));
    let scanned: Vec<String> =
        plan(&store, &list).into_iter().filter(|line| line.starts_with("SCAN")).collect();
    assert_eq!(scanned, ["SCAN layers"]);
    for line in plan(&store, crate::gc::STEPS) {
        assert!(!line.contains("records") || line.contains("COVERING INDEX"), "{line}");
    }
}

/// What a store with these relations is to do, in plain sets: the rule that garbage collection has always had.
#[derive(Default)]
struct Model {
    /// The layers that each record needs, without bases.
    records: BTreeMap<u8, Vec<usize>>,
    images: BTreeMap<u8, Vec<usize>>,
    condemned: BTreeSet<usize>,
}

/// How many layers there are; those from `PATCHES` on are changes to the one that is so many places before.
const LAYERS: usize = 9;
const PATCHES: usize = 6;

fn base_of(layer: usize) -> Option<usize> {
    layer.checked_sub(PATCHES)
}

/// These layers, and their bases.
fn with_bases(layers: &[usize]) -> BTreeSet<usize> {
    layers.iter().flat_map(|layer| [Some(*layer), base_of(*layer)]).flatten().collect()
}

impl Model {
    fn needed_by_images(&self) -> BTreeSet<usize> {
        self.images.values().flat_map(|layers| with_bases(layers)).collect()
    }

    fn needed_by_records(&self) -> BTreeSet<usize> {
        self.records.values().flat_map(|layers| with_bases(layers)).collect()
    }

    fn spare(&mut self, layers: &[usize]) {
        for layer in with_bases(layers) {
            self.condemned.remove(&layer);
        }
    }

    /// Records that need one of the layers go. The layers go, and what only those records needed, but for what images need.
    fn condemn(&mut self, layers: &BTreeSet<usize>) {
        let images = self.needed_by_images();
        let before = self.needed_by_records();
        self.records.retain(|_, needs| with_bases(needs).is_disjoint(layers));
        let after = self.needed_by_records();
        let gone = layers.iter().chain(before.difference(&after)).filter(|layer| !images.contains(layer));
        self.condemned.extend(gone);
    }
}

#[derive(Clone, Debug)]
enum Act {
    Record(u8, Vec<usize>),
    Image(u8, Vec<usize>),
    RemoveImage(u8),
    Condemn(BTreeSet<usize>),
    Spare(usize),
    /// As after a damage.
    Forget(usize),
}

fn act() -> impl Strategy<Value = Act> {
    let layers = || proptest::collection::vec(0..LAYERS, 0..5);
    prop_oneof![
        6 => (0..8_u8, layers()).prop_map(|(key, layers)| Act::Record(key, layers)),
        2 => (0..3_u8, layers()).prop_map(|(key, layers)| Act::Image(key, layers)),
        1 => (0..3_u8).prop_map(Act::RemoveImage),
        3 => proptest::collection::btree_set(0..LAYERS, 1..4).prop_map(Act::Condemn),
        1 => (0..LAYERS).prop_map(Act::Spare),
        1 => (0..LAYERS).prop_map(Act::Forget),
    ]
}

fn id(layer: usize) -> LayerId {
    format!("{layer:x}").repeat(64).parse().unwrap()
}

fn image_id(key: u8) -> Digest {
    Digest::sha256(&[key])
}

fn make_layer(store: &Store, layer: usize) {
    let dir = store.temp_dir().unwrap();
    fs::create_dir(dir.path().join("fs")).unwrap();
    if let Some(base) = base_of(layer) {
        Store::make_delta(dir.path(), &id(base)).unwrap();
    }
    store.put_layer(&id(layer), dir.path(), |_| Ok(()), [0; 32], LayerSize { files: 1, own: None }).unwrap();
}

/// Does the same in the store and in the model.
fn go(store: &Store, model: &mut Model, act: Act) {
    match act {
        Act::Record(key, layers) => {
            let ids: Vec<LayerId> = layers.iter().copied().map(id).collect();
            let about = RecordOf { layers: &ids, step: Some("step") };
            store.put_records(&[([key; 32], vec![key])], about).unwrap();
            model.spare(&layers);
            model.records.insert(key, layers);
        }
        Act::Image(key, layers) => {
            let stack = layers.iter().map(|layer| StackLayer { id: id(*layer), diff_id: None, clamp: None });
            let row =
                ImageRow { id: image_id(key), manifest: None, layers: stack.collect(), size: 0, stored: 0 };
            store.put_image(&row, &[]).unwrap();
            assert_eq!(store.image(&row.id).unwrap().unwrap().layers, row.layers);
            model.spare(&layers);
            model.images.insert(key, layers);
        }
        Act::RemoveImage(key) => {
            store.remove_image(&image_id(key)).unwrap();
            model.images.remove(&key);
        }
        Act::Condemn(layers) => {
            store.tombstone_layers(&layers.iter().map(|layer| id(*layer).to_string()).collect()).unwrap();
            model.condemn(&layers);
        }
        Act::Spare(layer) => {
            store.protect_layer(&id(layer)).unwrap();
            model.spare(&[layer]);
        }
        Act::Forget(layer) => {
            let gone = store.forget_layer(&id(layer)).unwrap();
            let needing = |layers: &Vec<usize>| with_bases(layers).contains(&layer);
            let expected: BTreeSet<Digest> = model
                .images
                .iter()
                .filter(|(_, layers)| needing(layers))
                .map(|(key, _)| image_id(*key))
                .collect();
            assert_eq!(gone.into_iter().collect::<BTreeSet<_>>(), expected);
            model.images.retain(|_, layers| !needing(layers));
            model.condemn(&BTreeSet::from([layer]));
            // Another step makes the layer again.
            make_layer(store, layer);
            model.condemned.remove(&layer);
        }
    }
}

/// The store has what the model has, and no row more.
fn compare(store: &Store, model: &Model) {
    let condemned: BTreeSet<LayerId> = model.condemned.iter().copied().map(id).collect();
    assert_eq!(store.tombstoned_layers().unwrap(), condemned);
    for key in 0..8_u8 {
        let there = store.record(&[key; 32]).unwrap().is_some();
        assert_eq!(there, model.records.contains_key(&key), "record {key}");
    }
    let (images, records) = (model.needed_by_images(), model.needed_by_records());
    for item in store.items().unwrap() {
        let layer = usize::from_str_radix(&item.id[..1], 16).unwrap();
        assert_eq!(
            (item.shared, item.recorded),
            (images.contains(&layer), records.contains(&layer)),
            "{layer}"
        );
    }
    // Each stack has one row, and there is none that no record is on.
    let stacks: BTreeSet<&[usize]> =
        model.records.values().flat_map(|layers| (1..=layers.len()).map(|depth| &layers[..depth])).collect();
    let rows: u32 =
        store.with_db(|db| db.query_row("SELECT count(*) FROM stacks", [], |row| row.get(0))).unwrap();
    assert_eq!(rows as usize, stacks.len());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn relations_keep_what_the_texts_of_records_and_images_kept(
        acts in proptest::collection::vec(act(), 1..25)
    ) {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(&root.path().join("s")).unwrap();
        (0..LAYERS).for_each(|layer| make_layer(&store, layer));
        let mut model = Model::default();
        for act in acts {
            go(&store, &mut model, act);
            compare(&store, &model);
        }
    }
}
