//! State directories of version 8, as the lapstrake of before made them.

use std::fs;

use lapstrake_oci::{DiffId, Digest};

use super::*;
use crate::gc::policy::Rule;
use crate::{Item, LayerSize, Reclaimed, StackLayer, Store};

/// Takes the database of a store away, and puts an empty one of an older version in its place.
pub(crate) fn old_database(store: &Store, version: i64) -> Connection {
    for name in ["state.db", "state.db-wal", "state.db-shm"] {
        fs::remove_file(store.root().join(name)).unwrap_or_default();
    }
    fs::write(store.root().join("state.json"), r#"{"format":1}"#).unwrap();
    let db = Connection::open(store.root().join("state.db")).unwrap();
    db.pragma_update(None, "journal_mode", "WAL").unwrap();
    db.execute_batch(FIRST).unwrap();
    for (added, tables) in ADDED.iter().filter(|(added, _)| *added <= version) {
        db.execute_batch(tables).unwrap();
        db.pragma_update(None, "user_version", added).unwrap();
    }
    db.pragma_update(None, "user_version", version).unwrap();
    db
}

fn id(digit: &str) -> LayerId {
    digit.repeat(64).parse().unwrap()
}

/// A record of a step as version 8 wrote it.
fn of_step(name: &str, layers: &[&str]) -> String {
    let stack = |digit: &&str| format!("{{\\\"id\\\":\\\"{}\\\"}}", id(digit));
    let layers: Vec<String> = layers.iter().map(stack).collect();
    let (parts, key) = ("[[\"op\",\"x\"],[\"input 0\",\"", "e".repeat(64));
    format!(
        "{{\"key\":\"{key}\",\"parts\":{parts}{key}\"]],\"result\":{{\"token\":\"{{\\\"layers\\\":[{}]}}\",\"content\":null}},\"name\":\"{name}\"}}",
        layers.join(",")
    )
}

fn image(digit: &str) -> Digest {
    Digest::sha256(digit.as_bytes())
}

/// A state directory of version 8. The layer `d` is changes to `c`.
fn version_8(root: &Path) -> Vec<(u8, String)> {
    let store = Store::open(root).unwrap();
    for digit in ["a", "b", "c", "d", "f"] {
        let dir = store.temp_dir().unwrap();
        fs::create_dir(dir.path().join("fs")).unwrap();
        if digit == "d" {
            Store::make_delta(dir.path(), &id("c")).unwrap();
        }
        let size = LayerSize { files: 100, own: None };
        store.put_layer(&id(digit), dir.path(), |_| Ok(()), [0; 32], size).unwrap();
    }
    let db = old_database(&store, 8);
    for digit in ["a", "b", "c", "d", "f"] {
        let base = (digit == "d").then(|| id("c").to_string());
        db.execute(
            "INSERT INTO layers (id, size, content, created, base) VALUES (?1, 100, zeroblob(32), 5, ?2)",
            params![id(digit).as_str(), base],
        )
        .unwrap();
    }
    let git = format!("{{\"layers\":[{{\"id\":\"{}\"}}]}}", id("f"));
    let web = format!("{{\"etag\":\"x\",\"modified\":\"\",\"digest\":\"sha256:{}\"}}", "9".repeat(64));
    let records = vec![
        (1, of_step("[2/3] COPY a .", &["a"])),
        (2, of_step("[3/3] RUN b", &["a", "b"])),
        (3, of_step("[3/3] COPY c .", &["a", "d"])),
        (4, git),
        (5, web),
        (6, "1700000000".to_owned()),
        (7, "what no version reads".to_owned()),
        (8, of_step("FROM scratch", &[])),
    ];
    for (key, text) in &records {
        db.execute(
            "INSERT INTO records1 (key, value, created) VALUES (?1, ?2, 7)",
            params![[*key; 32].as_slice(), text.as_bytes()],
        )
        .unwrap();
    }
    let layers = format!(
        r#"[{{"id":"{}","diff_id":"{}"}},{{"id":"{}","diff_id":"{}","clamp":-5}}]"#,
        id("a"),
        image("tar a"),
        id("d"),
        image("tar d")
    );
    for (name, layers) in [("app", layers.as_str()), ("nothing", "[]")] {
        db.execute(
            "INSERT INTO images (id, manifest, layers, size, stored) VALUES (?1, NULL, ?2, 300, 9)",
            params![image(name).to_string(), layers],
        )
        .unwrap();
        db.execute("INSERT INTO tags VALUES (?1, ?2, 9)", [name.to_owned(), image(name).to_string()])
            .unwrap();
    }
    records
}

fn format_of(root: &Path) -> String {
    fs::read_to_string(root.join("state.json")).unwrap()
}

#[test]
fn a_state_of_version_8_has_afterwards_what_it_had() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("s");
    let records = version_8(&root);
    let store = Store::open(&root).unwrap();
    assert_eq!(format_of(&root), r#"{"format":2}"#);
    for (key, text) in &records {
        assert_eq!(store.record(&[*key; 32]).unwrap().as_deref(), Some(text.as_bytes()), "record {key}");
    }
    let layer = |digit: &str, clamp| StackLayer {
        id: id(digit),
        diff_id: Some(DiffId(image(&format!("tar {digit}")))),
        clamp,
    };
    let app = store.image(&image("app")).unwrap().unwrap();
    assert_eq!((app.layers, app.size, app.stored), (vec![layer("a", None), layer("d", Some(-5))], 300, 9));
    assert_eq!(store.image(&image("nothing")).unwrap().unwrap().layers, []);
    assert_eq!(store.tags().unwrap().len(), 2);
    let items = store.items().unwrap();
    let told = |digit: &str| {
        let item: &Item = items.iter().find(|item| item.id == id(digit).as_str()).unwrap();
        (item.shared, item.recorded, item.depth, item.description.as_str())
    };
    assert_eq!(told("a"), (true, true, 1, "[2/3] COPY a ."));
    assert_eq!(told("b"), (false, true, 2, "[3/3] RUN b"));
    assert_eq!(told("c"), (true, true, 0, ""));
    assert_eq!(told("d"), (true, true, 2, "[3/3] COPY c ."));
    assert_eq!(told("f"), (false, true, 0, ""));
    // What no image needs goes, with its records.
    let gone: Vec<String> =
        store.collect(&[Rule::default()]).unwrap().into_iter().map(|item| item.id).collect();
    assert_eq!(gone, [id("b").to_string(), id("f").to_string()]);
    assert_eq!(store.reclaim().unwrap(), Reclaimed { count: 2, waiting: 0 });
    let left: Vec<u8> = (1..=8).filter(|key| store.record(&[*key; 32]).unwrap().is_some()).collect();
    assert_eq!(left, [1, 3, 5, 6, 7, 8]);
    for name in ["app", "nothing"] {
        store.remove_image(&image(name)).unwrap();
    }
    store.collect(&[Rule::default()]).unwrap();
    store.reclaim().unwrap();
    assert_eq!((store.items().unwrap(), store.layers_on_disk().unwrap()), (vec![], vec![]));
}

#[test]
fn nothing_is_migrated_while_an_older_process_is_at_work() {
    for name in ["0", "1", "gc"] {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("s");
        version_8(&root);
        // An older process holds this lock for as long as it uses the store.
        let lock = File::options().append(true).create(true).open(root.join("users").join(name)).unwrap();
        flock(&lock, FlockOperation::LockShared).unwrap();
        let refused = Store::open(&root).err().unwrap();
        assert!(matches!(refused, StoreError::OlderInUse { .. }), "{refused}");
        let text = refused.to_string();
        let program = std::env::current_exe().unwrap();
        let program = program.file_name().unwrap().to_string_lossy().into_owned();
        assert!(text.contains(&format!("process {} (`{program}", std::process::id())), "{text}");
        // The older one goes on as before.
        assert_eq!(format_of(&root), r#"{"format":1}"#);
        let db = Connection::open(root.join("state.db")).unwrap();
        assert!(has_old_records(&db).unwrap() && db::version(&db).unwrap() == 8);
        drop((lock, db));
        let store = Store::open(&root).unwrap();
        assert_eq!(store.images().unwrap().len(), 2);
        // Processes of the same version are in nobody's way.
        Store::open(&root).unwrap();
    }
}

#[test]
fn a_migration_that_was_killed_is_done_again() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("s");
    version_8(&root);
    write_superblock(&root).unwrap();
    let store = Store::open(&root).unwrap();
    assert_eq!((store.images().unwrap().len(), format_of(&root)), (2, r#"{"format":2}"#.to_owned()));
}

#[test]
fn many_may_open_a_state_of_version_8_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("s");
    version_8(&root);
    let start = std::sync::Barrier::new(6);
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                start.wait();
                assert_eq!(Store::open(&root).unwrap().images().unwrap().len(), 2);
            });
        }
    });
}

#[test]
fn a_newer_state_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("s");
    let store = Store::open(&root).unwrap();
    store.with_db(|db| db.pragma_update(None, "user_version", NEWEST + 1)).unwrap();
    drop(store);
    let refused = Store::open(&root).err().unwrap();
    assert!(matches!(refused, StoreError::TooNew { .. }), "{refused}");
    fs::write(root.join("state.json"), r#"{"format":3}"#).unwrap();
    let refused = Store::open(&root).err().unwrap().to_string();
    assert!(refused.ends_with("has format 3, and this lapstrake knows up to 2"), "{refused}");
}

#[test]
fn many_may_open_what_is_not_there_yet() {
    for _ in 0..20 {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("tmp")).unwrap();
        let start = std::sync::Barrier::new(8);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    start.wait();
                    open(dir.path()).map(drop).unwrap();
                });
            }
        });
    }
}

#[test]
fn records_of_builds_of_version_9_stay() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("s");
    let store = Store::open(&root).unwrap();
    let row = crate::BuildRow { id: "b".to_owned(), started: 1, line: "x".to_owned(), record: b"r".to_vec() };
    store.put_build(&row, b"log").unwrap();
    assert_eq!(store.builds().unwrap().len(), 1);
    let older = "DROP TRIGGER build_parts_go; DROP TABLE build_parts; ALTER TABLE builds DROP COLUMN pinned;
                 PRAGMA user_version = 9;";
    store.with_db(|db| db.execute_batch(older)).unwrap();
    drop(store);
    let store = Store::open(&root).unwrap();
    assert_eq!(store.build_log("b").unwrap(), b"log");
    assert!(store.update_build(&row, true).unwrap() && store.put_build_part("b", "error", b"x").unwrap());
}
