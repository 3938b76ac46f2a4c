//! What the OCI image spec demands of manifests, indexes, configs and layouts: its JSON schemas, and what they leave to
//! their readers, as fields that nobody knows.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use lapstrake_testkit::skip;
use serde_json::Value;

/// What is wrong in a document, each with its place.
#[derive(Default)]
struct Faults(Vec<String>);

/// What a value has to be.
#[derive(Clone, Copy)]
enum Must {
    Text,
    Count,
    Digest,
    MediaType,
    Time,
    Flag,
    Texts,
    /// An object of texts.
    Map,
    /// An object of empty objects.
    Set,
}

impl Faults {
    fn add(&mut self, place: &str, why: &str) {
        self.0.push(format!("{place}: {why}"));
    }

    /// A field that has to be there, or may be missing.
    fn field(&mut self, (object, place): (&Value, &str), name: &str, needed: bool, must: Must) {
        match object.get(name) {
            None if needed => self.add(place, &format!("`{name}` is missing")),
            None => {}
            Some(value) if is(value, must) => {}
            Some(value) => self.add(place, &format!("`{name}` is {value}")),
        }
    }

    /// No fields but these: a field that the spec does not know is most likely a slip.
    fn only(&mut self, (object, place): (&Value, &str), names: &[&str]) {
        let Some(object) = object.as_object() else { return self.add(place, "it is no object") };
        for name in object.keys().filter(|name| !names.contains(&name.as_str())) {
            self.add(place, &format!("`{name}` is unknown"));
        }
    }

    fn descriptor(&mut self, value: &Value, place: &str) {
        let here = (value, place);
        self.only(
            here,
            &["mediaType", "digest", "size", "urls", "annotations", "data", "artifactType", "platform"],
        );
        self.field(here, "mediaType", true, Must::MediaType);
        self.field(here, "digest", true, Must::Digest);
        self.field(here, "size", true, Must::Count);
        self.field(here, "urls", false, Must::Texts);
        self.field(here, "annotations", false, Must::Map);
        if let Some(platform) = value.get("platform") {
            let place = format!("{place}.platform");
            let here = (platform, place.as_str());
            self.only(here, &["architecture", "os", "os.version", "os.features", "variant"]);
            self.field(here, "architecture", true, Must::Text);
            self.field(here, "os", true, Must::Text);
            self.field(here, "variant", false, Must::Text);
        }
    }

    fn manifest(&mut self, value: &Value) {
        let here = (value, "manifest");
        self.only(
            here,
            &["schemaVersion", "mediaType", "artifactType", "config", "subject", "layers", "annotations"],
        );
        if value["schemaVersion"] != 2 {
            self.add("manifest", "schemaVersion is not 2");
        }
        self.field(here, "mediaType", true, Must::MediaType);
        self.field(here, "annotations", false, Must::Map);
        self.descriptor(&value["config"], "manifest.config");
        let layers = value["layers"].as_array().map(Vec::as_slice).unwrap_or_default();
        if layers.is_empty() {
            self.add("manifest", "it has no layers");
        }
        for (number, layer) in layers.iter().enumerate() {
            self.descriptor(layer, &format!("manifest.layers[{number}]"));
        }
    }

    fn index(&mut self, value: &Value) {
        let here = (value, "index");
        self.only(
            here,
            &["schemaVersion", "mediaType", "artifactType", "manifests", "subject", "annotations"],
        );
        if value["schemaVersion"] != 2 {
            self.add("index", "schemaVersion is not 2");
        }
        self.field(here, "mediaType", false, Must::MediaType);
        self.field(here, "annotations", false, Must::Map);
        let Some(manifests) = value["manifests"].as_array() else { return self.add("index", "no manifests") };
        for (number, manifest) in manifests.iter().enumerate() {
            self.descriptor(manifest, &format!("index.manifests[{number}]"));
        }
    }

    fn config(&mut self, value: &Value) {
        let here = (value, "config");
        self.only(
            here,
            &[
                "created",
                "author",
                "architecture",
                "variant",
                "os",
                "os.version",
                "os.features",
                "config",
                "rootfs",
                "history",
                // What the look-alikes of other people's images have, to see that it is kept.
                "moby.unknown",
            ],
        );
        self.field(here, "architecture", true, Must::Text);
        self.field(here, "os", true, Must::Text);
        self.field(here, "created", false, Must::Time);
        self.field(here, "author", false, Must::Text);
        self.field(here, "variant", false, Must::Text);
        if value["rootfs"]["type"] != "layers" || !is(&value["rootfs"]["diff_ids"], Must::Texts) {
            self.add("config", "its rootfs is no list of layers");
        }
        let diff_ids = value["rootfs"]["diff_ids"].as_array().map(Vec::as_slice).unwrap_or_default();
        if !diff_ids.iter().all(|digest| is(digest, Must::Digest)) {
            self.add("config", "a diff id is no digest");
        }
        let rows = value["history"].as_array().map(Vec::as_slice).unwrap_or_default();
        for (number, row) in rows.iter().enumerate() {
            let place = format!("config.history[{number}]");
            let here = (row, place.as_str());
            self.only(here, &["created", "author", "created_by", "comment", "empty_layer"]);
            self.field(here, "created", false, Must::Time);
            self.field(here, "created_by", false, Must::Text);
            self.field(here, "comment", false, Must::Text);
            self.field(here, "empty_layer", false, Must::Flag);
        }
        let told = rows.iter().filter(|row| row["empty_layer"] != true).count();
        if !rows.is_empty() && told != diff_ids.len() {
            self.add("config", "its history tells of another number of layers");
        }
        if let Some(config) = value.get("config") {
            self.container((config, "config.config"));
        }
    }

    fn container(&mut self, here: (&Value, &str)) {
        // The last four are Docker's, which the spec leaves to its users.
        self.only(
            here,
            &[
                "User",
                "ExposedPorts",
                "Env",
                "Entrypoint",
                "Cmd",
                "Volumes",
                "WorkingDir",
                "Labels",
                "StopSignal",
                "ArgsEscaped",
                "Healthcheck",
                "OnBuild",
                "Shell",
            ],
        );
        for (name, must) in [
            ("User", Must::Text),
            ("ExposedPorts", Must::Set),
            ("Env", Must::Texts),
            ("Entrypoint", Must::Texts),
            ("Cmd", Must::Texts),
            ("Volumes", Must::Set),
            ("WorkingDir", Must::Text),
            ("Labels", Must::Map),
            ("StopSignal", Must::Text),
            ("OnBuild", Must::Texts),
            ("Shell", Must::Texts),
        ] {
            self.field(here, name, false, must);
        }
    }
}

fn is(value: &Value, must: Must) -> bool {
    let text = value.as_str();
    let all = |check: fn(&Value) -> bool| value.as_object().is_some_and(|map| map.values().all(check));
    match must {
        Must::Text => text.is_some(),
        Must::Flag => value.is_boolean(),
        Must::Count => value.as_i64().is_some_and(|count| count >= 0),
        Must::Texts => value.as_array().is_some_and(|list| list.iter().all(Value::is_string)),
        Must::Map => all(Value::is_string),
        Must::Set => all(|value| value.as_object().is_some_and(serde_json::Map::is_empty)),
        Must::Digest => text.is_some_and(is_digest),
        Must::MediaType => text.is_some_and(|text| {
            let part = |part: &str| {
                let mut bytes = part.bytes();
                (1..=127).contains(&part.len())
                    && bytes.next().is_some_and(|byte| byte.is_ascii_alphanumeric())
                    && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&byte))
            };
            text.split_once('/').is_some_and(|(kind, sub)| part(kind) && part(sub))
        }),
        Must::Time => text.is_some_and(is_time),
    }
}

fn is_digest(text: &str) -> bool {
    text.split_once(':').is_some_and(|(algorithm, encoded)| {
        let hex = encoded.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        hex && matches!((algorithm, encoded.len()), ("sha256", 64) | ("sha512", 128))
    })
}

/// RFC 3339: `2024-05-06T07:08:09[.5](Z|+01:00)`.
fn is_time(text: &str) -> bool {
    let pattern = b"0000-00-00T00:00:00";
    let fits = |(byte, want): (u8, &u8)| if *want == b'0' { byte.is_ascii_digit() } else { byte == *want };
    let rest = text.get(pattern.len()..).unwrap_or_default();
    let rest =
        rest.strip_prefix('.').map_or(rest, |rest| rest.trim_start_matches(|c: char| c.is_ascii_digit()));
    text.len() > pattern.len() && text.bytes().zip(pattern).all(fits) && (rest == "Z" || rest.len() == 6)
}

/// Validates documents by the official schemas: reads a schema's name and a path in each line.
const VALIDATE: &str = r#"
import json, os, sys, jsonschema
schemas = {name: json.load(open(os.path.join(sys.argv[1], name))) for name in os.listdir(sys.argv[1]) if name.endswith(".json")}

class Here(jsonschema.RefResolver):
    # Schemas refer to each other by addresses: nothing is fetched.
    def resolve_remote(self, uri):
        return schemas[uri.rsplit("/", 1)[-1]]

count = 0
for line in sys.stdin:
    name, path = line.rstrip("\n").split(" ", 1)
    schema = schemas[name + ".json"]
    validator = jsonschema.Draft4Validator(schema, resolver=Here(schema["id"], schema), format_checker=jsonschema.FormatChecker())
    for error in validator.iter_errors(json.load(open(path))):
        print(f"{path}: {name}: {'/'.join(map(str, error.path))}: {error.message}")
    count += 1
print(f"{count} validated")
"#;

/// Holds documents, each with the name of its schema, to the official schemas.
fn official(documents: &[(&str, PathBuf)]) -> Result<(), String> {
    let schemas = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/oci-schemas");
    // Debian's own, which has the package python3-jsonschema.
    let mut python = Command::new("/usr/bin/python3")
        .args(["-W", "ignore", "-c", VALIDATE])
        .arg(schemas)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("python3: {error}"))?;
    let lines: String = documents.iter().map(|(name, path)| format!("{name} {}\n", path.display())).collect();
    if let Some(mut input) = python.stdin.take() {
        input.write_all(lines.as_bytes()).map_err(|error| error.to_string())?;
    }
    let output = python.wait_with_output().map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&output.stdout);
    if said.trim() == format!("{} validated", documents.len()) {
        return Ok(());
    }
    Err(format!("the schemas of the OCI are not followed (or python3-jsonschema is missing): {said}"))
}

fn blob(dir: &Path, descriptor: &Value) -> Result<Vec<u8>, String> {
    let digest = descriptor["digest"].as_str().unwrap_or_default();
    let bytes =
        fs::read(dir.join("blobs").join(digest.replace(':', "/"))).map_err(|e| format!("{digest}: {e}"))?;
    if descriptor["size"].as_u64() != Some(bytes.len() as u64) {
        return Err(format!("{digest} has another size than is said"));
    }
    Ok(bytes)
}

/// Checks an OCI layout, with everything that it lists. `docker` says that its types are Docker's, of which the spec
/// does not speak: their forms are the same.
pub(super) fn layout(dir: &Path) -> Result<(), String> {
    let json = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).map_err(|error| error.to_string());
    let read = |name: &str| fs::read(dir.join(name)).map_err(|error| format!("{name}: {error}"));
    let mut faults = Faults::default();
    let version = json(&read("oci-layout")?)?;
    if version != serde_json::json!({"imageLayoutVersion": "1.0.0"}) {
        faults.add("oci-layout", "its version is not 1.0.0");
    }
    let index = json(&read("index.json")?)?;
    faults.index(&index);
    let mut documents =
        vec![("image-layout-schema", dir.join("oci-layout")), ("image-index-schema", dir.join("index.json"))];
    let path = |descriptor: &Value| {
        dir.join("blobs").join(descriptor["digest"].as_str().unwrap_or_default().replace(':', "/"))
    };
    let mut entries: Vec<Value> = index["manifests"].as_array().cloned().unwrap_or_default();
    while let Some(entry) = entries.pop() {
        let manifest = json(&blob(dir, &entry)?)?;
        if manifest["mediaType"] != entry["mediaType"] {
            faults.add("index", "a manifest's type is another one than is listed");
        }
        if let Some(inner) = manifest["manifests"].as_array() {
            faults.index(&manifest);
            documents.push(("image-index-schema", path(&entry)));
            entries.extend(inner.iter().cloned());
            continue;
        }
        faults.manifest(&manifest);
        documents.push(("image-manifest-schema", path(&entry)));
        documents.push(("config-schema", path(&manifest["config"])));
        let config = json(&blob(dir, &manifest["config"])?)?;
        faults.config(&config);
        for layer in manifest["layers"].as_array().into_iter().flatten() {
            blob(dir, layer)?;
        }
    }
    official(&documents)?;
    if faults.0.is_empty() { Ok(()) } else { Err(faults.0.join("\n")) }
}

/// Checks every manifest, index and config that a registry of the place was ever sent. Fails too if there is none.
pub(super) fn pushed(storage: &Path) -> Result<(), String> {
    let blobs = storage.join("docker/registry/v2/blobs/sha256");
    let list = |dir: &Path| -> Result<Vec<std::path::PathBuf>, String> {
        let entries = fs::read_dir(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        Ok(entries.flatten().map(|entry| entry.path()).collect())
    };
    let (mut faults, mut counts, mut documents) = (Faults::default(), [0; 3], Vec::new());
    for blob in list(&blobs)?.iter().map(|prefix| list(prefix)).collect::<Result<Vec<_>, _>>()?.concat() {
        // Only what is being uploaded has no data.
        let bytes = fs::read(blob.join("data")).unwrap_or_default();
        let Ok(value) = serde_json::from_slice::<Value>(&bytes) else { continue };
        let before = faults.0.len();
        let kind = match &value {
            value if value["layers"].is_array() && value["config"].is_object() => 0,
            value if value["manifests"].is_array() => 1,
            value if value["rootfs"].is_object() => 2,
            // The config of a cache is BuildKit's own.
            _ => continue,
        };
        [Faults::manifest, Faults::index, Faults::config][kind](&mut faults, &value);
        counts[kind] += 1;
        let schema = ["image-manifest-schema", "image-index-schema", "config-schema"][kind];
        documents.push((schema, blob.join("data")));
        for fault in &mut faults.0[before..] {
            *fault = format!("{}: {fault}", blob.display());
        }
    }
    if counts[0] == 0 {
        return Err(format!("there is nothing to check: {counts:?}"));
    }
    official(&documents)?;
    if faults.0.is_empty() { Ok(()) } else { Err(faults.0.join("\n")) }
}

/// Whether these checks find what is wrong.
pub(super) const CHECKS: &[super::Check] = &[
    ("conform::slips_are_found_by_the_official_schemas", slips_are_found_by_the_official_schemas),
    ("conform::slips_are_found", slips_are_found),
];

fn slips_are_found_by_the_official_schemas() -> Result<(), String> {
    let schemas = Command::new("/usr/bin/python3").args(["-c", "import jsonschema"]).status();
    if !schemas.is_ok_and(|status| status.success()) {
        skip("python3-jsonschema is not installed");
    }
    let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
    let check = |schema: &'static str, value: &Value| {
        let path = dir.path().join("document");
        fs::write(&path, value.to_string()).expect("a temporary directory can be written to");
        official(&[(schema, path)]).map_err(|why| why.lines().next().unwrap_or_default().to_owned())
    };
    let digest = format!("sha256:{}", "0".repeat(64));
    let descriptor = serde_json::json!({"mediaType": "a/b", "digest": digest, "size": 1});
    let manifest = serde_json::json!({"schemaVersion": 2, "config": descriptor, "layers": [descriptor]});
    assert_eq!(check("image-manifest-schema", &manifest), Ok(()));
    let config = serde_json::json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [digest]}});
    assert_eq!(check("config-schema", &config), Ok(()));
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [descriptor]});
    assert_eq!(check("image-index-schema", &index), Ok(()));
    for (schema, wrong) in [
        (
            "image-manifest-schema",
            serde_json::json!({"schemaVersion": 2, "config": descriptor, "layers": []}),
        ),
        (
            "image-manifest-schema",
            serde_json::json!({"schemaVersion": 2, "config": {"digest": "x"}, "layers": [descriptor]}),
        ),
        ("image-index-schema", serde_json::json!({"schemaVersion": 1, "manifests": [descriptor]})),
        ("config-schema", serde_json::json!({"os": "linux", "rootfs": {"type": "layers", "diff_ids": []}})),
        ("image-layout-schema", serde_json::json!({"imageLayoutVersion": "2"})),
    ] {
        assert!(check(schema, &wrong).is_err(), "{wrong}");
    }
    Ok(())
}

fn slips_are_found() -> Result<(), String> {
    let check = |what: fn(&mut Faults, &Value), value: &Value| {
        let mut faults = Faults::default();
        what(&mut faults, value);
        faults.0
    };
    let digest = format!("sha256:{}", "0".repeat(64));
    let descriptor = serde_json::json!({"mediaType": "a/b", "digest": digest, "size": 1});
    let manifest = serde_json::json!({"schemaVersion": 2, "mediaType": "a/b", "config": descriptor, "layers": [descriptor]});
    assert!(check(Faults::manifest, &manifest).is_empty());
    for (field, value) in [
        ("schemaVersion", serde_json::json!(1)),
        ("mediaType", serde_json::json!("ab")),
        ("layers", serde_json::json!([])),
        ("layers", serde_json::json!([{"mediaType": "a/b", "digest": "sha256:0", "size": -1}])),
        ("annotations", serde_json::json!({"a": 1})),
        ("extra", serde_json::json!(1)),
    ] {
        let mut wrong = manifest.clone();
        wrong[field] = value;
        assert!(!check(Faults::manifest, &wrong).is_empty(), "{wrong}");
    }
    let config = serde_json::json!({"architecture": "amd64", "os": "linux", "created": "2024-05-06T07:08:09.5Z",
        "config": {"Env": ["A=b"], "Volumes": {"/x": {}}}, "rootfs": {"type": "layers", "diff_ids": [digest]},
        "history": [{"created": "2024-05-06T07:08:09+01:00"}, {"empty_layer": true}]});
    assert_eq!(check(Faults::config, &config), Vec::<String>::new());
    for (field, value) in [
        ("created", serde_json::json!("yesterday")),
        ("os", serde_json::json!(null)),
        ("history", serde_json::json!([])),
        ("config", serde_json::json!({"env": []})),
        ("config", serde_json::json!({"Volumes": {"/x": 1}})),
        ("rootfs", serde_json::json!({"type": "layers", "diff_ids": ["x"]})),
    ] {
        let mut wrong = config.clone();
        wrong[field] = value;
        let empty_history = field == "history";
        assert_eq!(check(Faults::config, &wrong).is_empty(), empty_history, "{wrong}");
    }
    Ok(())
}
