//! Condemning and reclaiming in a real state directory.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::gc::policy::Rule;
use crate::{ImageRow, LayerSize, RecordOf, StackLayer};

fn layer(store: &Store, digit: &str) -> LayerId {
    let id: LayerId = digit.repeat(64).parse().unwrap();
    let dir = store.temp_dir().unwrap();
    fs::create_dir(dir.path().join("fs")).unwrap();
    fs::write(dir.path().join("fs/file"), digit).unwrap();
    store.put_layer(&id, dir.path(), |_| Ok(()), [0; 32], LayerSize { files: 1_000, own: None }).unwrap();
    id
}

/// A record whose result is these layers.
fn record(store: &Store, key: u8, layers: &[&LayerId]) {
    let layers: Vec<LayerId> = layers.iter().map(|id| (*id).clone()).collect();
    let step = format!("step {key}");
    let about = RecordOf { layers: &layers, step: Some(&step) };
    store.put_records(&[([key; 32], b"record".to_vec())], about).unwrap();
}

fn image(store: &Store, layer: &LayerId) {
    let id = Digest::sha256(layer.as_str().as_bytes());
    let layers = vec![StackLayer { id: layer.clone(), diff_id: None, clamp: None }];
    let image = ImageRow { id, manifest: None, layers, size: 1, stored: 0 };
    store.put_image(&image, &[]).unwrap();
}

fn everything() -> [Rule; 1] {
    [Rule::default()]
}

fn open(root: &Path) -> Store {
    Store::open(&root.join("s")).unwrap()
}

#[test]
fn what_no_image_has_goes_with_its_records() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let (kept, gone, above) = (layer(&store, "a"), layer(&store, "b"), layer(&store, "c"));
    image(&store, &kept);
    record(&store, 1, &[&kept]);
    record(&store, 2, &[&kept, &gone]);
    record(&store, 3, &[&kept, &gone, &above]);
    let items = store.items().unwrap();
    let found = |id: &LayerId| items.iter().find(|item| item.id == id.as_str()).unwrap();
    assert_eq!((found(&above).description.as_str(), found(&above).depth), ("step 3", 3));
    assert!(found(&kept).shared && !found(&gone).shared);
    let went: u64 = store.collect(&everything()).unwrap().iter().map(|item| item.size).sum();
    assert_eq!(went, 2_000);
    assert!(store.record(&[1; 32]).unwrap().is_some() && store.record(&[3; 32]).unwrap().is_none());
    // It is still there: a process that came before may be using it.
    assert!(store.has_layer(&gone));
    assert_eq!(store.reclaim().unwrap(), Reclaimed { count: 2, waiting: 0 });
    assert!(store.has_layer(&kept) && !store.has_layer(&gone) && !store.has_layer(&above));
    assert_eq!(store.items().unwrap().len(), 1);
}

#[test]
fn nothing_goes_from_under_who_was_there_before() {
    let root = tempfile::tempdir().unwrap();
    let (before, pruner) = (open(root.path()), open(root.path()));
    let gone = layer(&before, "a");
    record(&before, 1, &[&gone]);
    pruner.collect(&everything()).unwrap();
    let after = open(root.path());
    assert_eq!(pruner.reclaim().unwrap(), Reclaimed { count: 0, waiting: 1 });
    assert!(before.has_layer(&gone));
    drop(before);
    // Those that come later do not keep it, however many there are.
    assert_eq!(pruner.reclaim().unwrap(), Reclaimed { count: 1, waiting: 0 });
    assert!(!after.has_layer(&gone));
}

/// A server that prunes itself while it builds.
#[test]
fn parts_of_a_process_keep_what_they_found() {
    let root = tempfile::tempdir().unwrap();
    let server = Arc::new(open(root.path()));
    server.leave();
    let gone = layer(&server, "a");
    record(&server, 1, &[&gone]);
    let build = server.begin_use().unwrap();
    assert!(server.has_files(&gone));
    server.collect(&everything()).unwrap();
    assert_eq!(server.reclaim().unwrap(), Reclaimed { count: 0, waiting: 1 });
    // Nor does another process take it.
    let other = open(root.path());
    assert_eq!(other.reclaim().unwrap(), Reclaimed { count: 0, waiting: 1 });
    assert!(server.has_layer(&gone) && server.has_files(&gone));
    drop(build);
    assert_eq!(other.reclaim().unwrap(), Reclaimed { count: 1, waiting: 0 });
    // The server has seen the layer, and does not believe that any more.
    let next = server.begin_use().unwrap();
    assert!(!server.has_layer(&gone) && !server.has_files(&gone));
    drop(next);
}

#[test]
fn generations_follow_each_other() {
    let root = tempfile::tempdir().unwrap();
    let mut living = open(root.path());
    for round in 0..6 {
        let digit = format!("{round:x}");
        let gone = layer(&living, &digit);
        record(&living, 1, &[&gone]);
        let pruner = open(root.path());
        pruner.collect(&everything()).unwrap();
        assert_eq!(pruner.reclaim().unwrap().count, 0, "round {round}");
        // The next process always comes before the last one goes: then two of them are waited for at the most.
        let mut count = 0;
        for _ in 0..2 {
            let next = open(root.path());
            drop(std::mem::replace(&mut living, next));
            count += pruner.reclaim().unwrap().count;
        }
        assert_eq!(count, 1, "round {round}");
        assert!(!living.has_layer(&gone));
    }
}

#[test]
fn who_needs_a_condemned_thing_takes_it_back() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let layers = ["a", "b", "c", "d", "e"].map(|digit| layer(&store, digit));
    let blob = store.put_blob(b"config").unwrap();
    store.with_db(|db| db.execute("INSERT INTO condemned_blobs VALUES (?1, 0)", [blob.to_string()])).unwrap();
    store.link_diff(&lapstrake_oci::DiffId(Digest::sha256(b"e")), &layers[4]).unwrap();
    store.collect(&everything()).unwrap();
    image(&store, &layers[0]);
    record(&store, 1, &[&layers[1]]);
    assert_eq!(layer(&store, "c"), layers[2]);
    assert!(store.protect_layer(&layers[3]).unwrap());
    assert!(store.has_blob(&blob));
    // A tar that is known no more is no way back.
    assert_eq!(store.layer_of_diff(&lapstrake_oci::DiffId(Digest::sha256(b"e"))).unwrap(), None);
    assert_eq!(store.reclaim().unwrap(), Reclaimed { count: 1, waiting: 0 });
    assert!(layers[..4].iter().all(|id| store.has_layer(id)) && !store.has_layer(&layers[4]));
    assert_eq!(store.read_blob(&blob).unwrap(), b"config");
}

#[test]
fn cache_directories_in_use_stay() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let mut used = store.cache_dir("used", crate::Sharing::Shared).unwrap();
    used.settle().unwrap();
    let mut free = store.cache_dir("free", crate::Sharing::Shared).unwrap();
    free.settle().unwrap();
    fs::write(free.path().join("file"), vec![1; 100_000]).unwrap();
    std::os::unix::fs::symlink("/", free.path().join("link")).unwrap();
    store.measure_mounts().unwrap();
    let sizes: Vec<u64> = store.items().unwrap().iter().map(|item| item.size).collect();
    assert!(sizes.iter().any(|size| (100_000..1_000_000).contains(size)), "{sizes:?}");
    let path = free.path().to_owned();
    drop(free);
    store.collect(&everything()).unwrap();
    assert!(used.path().exists() && !path.exists());
    let again = store.cache_dir("free", crate::Sharing::Shared).unwrap();
    assert!(again.is_fresh() && again.path() == path);
}

/// As they were before anything could be pruned.
#[test]
fn state_of_earlier_versions_is_taken_over() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let id = layer(&store, "a");
    let old = crate::migrate::tests::old_database(&store, 2);
    old.execute(
        "INSERT INTO layers (id, size, content, created) VALUES (?1, 1, zeroblob(32), 1)",
        [id.as_str()],
    )
    .unwrap();
    drop(old);
    drop(store);
    fs::remove_dir_all(root.path().join("s/users")).unwrap();
    let store = open(root.path());
    assert_eq!(store.items().unwrap()[0].id, id.as_str());
}

/// A layer, and another one that is changes to it.
fn changed(store: &Store) -> (LayerId, LayerId) {
    let (base, id): (_, LayerId) = (layer(store, "a"), "b".repeat(64).parse().unwrap());
    let dir = store.temp_dir().unwrap();
    fs::create_dir(dir.path().join("fs")).unwrap();
    Store::make_delta(dir.path(), &base).unwrap();
    store.put_layer(&id, dir.path(), |_| Ok(()), [0; 32], LayerSize { files: 1_000, own: Some(70) }).unwrap();
    (base, id)
}

#[test]
fn a_layer_stays_while_changes_to_it_are_needed() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let (base, changes) = changed(&store);
    record(&store, 1, &[&base]);
    record(&store, 2, &[&changes]);
    image(&store, &changes);
    assert!(store.items().unwrap().iter().all(|item| item.shared));
    // What takes room is told, and not what is shown.
    let sizes: Vec<u64> = store.items().unwrap().iter().map(|item| item.size).collect();
    assert_eq!((sizes, store.layer(&changes).unwrap().unwrap().size), (vec![1_000, 70], 1_000));
    assert_eq!(store.collect(&everything()).unwrap(), []);
    store.remove_image(&Digest::sha256(changes.as_str().as_bytes())).unwrap();
    assert_eq!(store.collect(&everything()).unwrap().len(), 2);
    // Whoever comes to need the changes takes both back.
    assert!(store.protect_layer(&changes).unwrap());
    assert_eq!(store.items().unwrap().len(), 2);
    record(&store, 3, &[&changes]);
    store.collect(&everything()).unwrap();
    assert_eq!(store.reclaim().unwrap().count, 2);
}

#[test]
fn changes_take_back_what_they_lie_on_and_keep_it_in_use() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let (base, changes) = changed(&store);
    let both_are_there = || store.items().unwrap().len() == 2;
    let of_base = |what: &str| {
        let text = format!("UPDATE layers SET {what} WHERE id = '{base}'");
        store.with_db(|db| db.execute(&text, []).map(drop)).unwrap();
    };
    of_base("condemned = 0");
    assert!(!both_are_there());
    assert!(store.protect_layer(&changes).unwrap() && both_are_there());
    // It is not the first to be pruned because nobody has used it alone for long.
    of_base("created = 1, used = 1");
    let used: BTreeSet<i64> = store.items().unwrap().iter().map(|item| item.used).collect();
    assert_eq!(used.len(), 1);
}

#[test]
fn changes_go_with_what_they_lie_on() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let (base, changes) = changed(&store);
    record(&store, 1, &[&changes]);
    image(&store, &changes);
    // What is damaged takes with it what cannot be without it.
    assert_eq!(store.forget_layer(&base).unwrap(), [Digest::sha256(changes.as_str().as_bytes())]);
    assert!(!store.has_layer(&changes) && store.record(&[1; 32]).unwrap().is_none());
    assert_eq!(store.items().unwrap(), []);
}

/// Adds a packed layer whose files are in a blob.
fn packed(store: &Store, digit: &str) -> (LayerId, Digest) {
    let id: LayerId = digit.repeat(64).parse().unwrap();
    let dir = store.temp_dir().unwrap();
    store.put_layer(&id, dir.path(), |_| Ok(()), [0; 32], LayerSize { files: 5, own: None }).unwrap();
    let tar = store.put_blob(format!("tar {digit}").as_bytes()).unwrap();
    let diff_id = lapstrake_oci::DiffId(Digest::sha256(digit.as_bytes()));
    store.link_diff(&diff_id, &id).unwrap();
    let blob = crate::Blob { digest: tar.clone(), size: 5, media_type: "tar".to_owned() };
    store.link_layer_blob(&diff_id, "original", &blob).unwrap();
    // Rows that only tell of the blob.
    let table = crate::Blob { digest: Digest::sha256(b"table"), size: 9, media_type: "table".to_owned() };
    store.link_layer_blob(&diff_id, &format!("to-table-of-{}", tar.hex()), &table).unwrap();
    store.set_blob_repository(&tar, "localhost", "a").unwrap();
    (id, tar)
}

#[test]
fn a_packed_layer_stays_for_who_had_it_before() {
    let root = tempfile::tempdir().unwrap();
    let build = open(root.path());
    let (id, tar) = packed(&build, "a");
    let other = open(root.path());
    other.collect(&everything()).unwrap();
    assert!(other.tombstoned_layers().unwrap().contains(&id));
    assert!(other.reclaim().unwrap().count == 0);
    // The build comes to need the files only now.
    let blob = build.lazy_blob(&id).unwrap().expect("the blob is known");
    assert!(blob.digest == tar && build.has_layer(&id) && build.read_blob(&tar).is_ok());
    // A record keeps the layer and the blob that it is packed in.
    let second = open(root.path());
    second.collect(&everything()).unwrap();
    record(&build, 1, &[&id]);
    drop(build);
    second.reclaim().unwrap();
    drop((other, second));
    let last = open(root.path());
    last.reclaim().unwrap();
    assert!(last.lazy_blob(&id).unwrap().is_some());
    last.collect(&everything()).unwrap();
    last.reclaim().unwrap();
    is_empty(root.path(), &last);
}

#[test]
fn blobs_without_a_name_go_and_named_ones_stay() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let (lost, kept) = (store.put_blob(b"lost").unwrap(), layer(&store, "a"));
    image(&store, &kept);
    let before = open(root.path());
    let late = before.put_blob(b"late").unwrap();
    store.collect(&everything()).unwrap();
    // One that is named after it was tombstoned stays.
    let row = ImageRow { id: late.clone(), manifest: None, layers: Vec::new(), size: 0, stored: 0 };
    before.put_image(&row, &["late".parse().unwrap()]).unwrap();
    drop(before);
    store.reclaim().unwrap();
    assert!(!store.blob_path(&lost).exists() && store.blob_path(&late).exists());
    store.remove_image(&late).unwrap();
    for image in store.images().unwrap() {
        store.remove_image(&image.id).unwrap();
    }
    store.collect(&everything()).unwrap();
    store.reclaim().unwrap();
    is_empty(root.path(), &store);
}

/// Nothing takes room that was put there.
fn is_empty(root: &Path, store: &Store) {
    for dir in ["blobs/sha256", "layers", "contexts"] {
        let left: Vec<_> = std::fs::read_dir(root.join("s").join(dir)).unwrap().flatten().collect();
        assert!(left.is_empty(), "{dir}: {left:?}");
    }
    for table in [
        "layers",
        "blobs",
        "diffs",
        "condemned_blobs",
        "images",
        "records",
        "stacks",
        "image_layers",
        "repositories",
        "tags",
        "digests",
        "variants",
        "mounts",
    ] {
        let count: i64 = store
            .with_db(|db| db.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)))
            .unwrap();
        assert_eq!(count, 0, "{table}");
    }
}
