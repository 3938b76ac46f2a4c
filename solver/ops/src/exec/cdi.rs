//! Devices of the host by their CDI names (Container Device Interface, specification 1.1).
//!
//! A spec file says which nodes, files and variables make up a device. Its hooks are programs of the host that would
//! have to run as part of the builder; devices that need some are refused.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use lapstrake_graph::Device;
use serde::Deserialize;

use crate::error::OpsError;

/// Whose devices may be had by this name.
const CLASS: &str = "org.mobyproject.buildkit.device.class";
/// Whether a device needs no leave.
const AUTO_ALLOW: &str = "org.mobyproject.buildkit.device.autoallow";
/// The entitlement: with nothing behind it, it is all devices.
const ENTITLEMENT: &str = "device";

/// The directories with specs of devices that other programs use, least important first.
pub const USUAL_DIRS: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];

/// A device that the spec files of a machine tell of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownDevice {
    /// The qualified name: `VENDOR/CLASS=NAME`.
    pub name: String,
    /// Whether a step may have the device without an entitlement.
    pub is_free: bool,
    /// The annotations of its spec, and its own in place of those with the same names.
    pub annotations: BTreeMap<String, String>,
}

/// The devices that the spec files in `dirs` tell of, by name. Files that cannot be read have none.
pub fn known_devices(dirs: &[PathBuf]) -> Vec<KnownDevice> {
    let devices = Devices::load(dirs);
    let known = devices.by_name.iter().map(|(name, (spec, device))| {
        let spec = &devices.specs[*spec].1;
        let mut annotations = spec.annotations.clone();
        annotations.extend(spec.devices[*device].annotations.clone());
        KnownDevice { name: name.clone(), is_free: devices.is_free(name), annotations }
    });
    known.collect()
}

/// What devices add to a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Edits {
    /// `KEY=value`
    pub(crate) env: Vec<String>,
    /// Device nodes of the host, and where they are to be.
    pub(crate) nodes: Vec<(PathBuf, String)>,
    /// Files and directories of the host.
    pub(crate) mounts: Vec<HostMount>,
    /// Groups of the process.
    pub(crate) groups: BTreeSet<u32>,
}

/// A file or directory of the host in a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostMount {
    pub(crate) source: PathBuf,
    pub(crate) target: String,
    pub(crate) readonly: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    kind: String,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    devices: Vec<SpecDevice>,
    #[serde(default)]
    container_edits: SpecEdits,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SpecDevice {
    name: String,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    container_edits: SpecEdits,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SpecEdits {
    env: Vec<String>,
    device_nodes: Vec<SpecNode>,
    mounts: Vec<SpecMount>,
    #[serde(rename = "additionalGids")]
    groups: Vec<u32>,
    hooks: Vec<Ignored>,
    net_devices: Vec<Ignored>,
    intel_rdt: Option<Ignored>,
}

/// Something whose content does not matter, because it is refused.
#[derive(Debug, Deserialize)]
struct Ignored {}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SpecNode {
    path: String,
    host_path: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SpecMount {
    host_path: PathBuf,
    container_path: String,
    #[serde(default)]
    options: Vec<String>,
}

/// All devices that the spec files of some directories tell of.
#[derive(Debug, Default)]
pub(crate) struct Devices {
    specs: Vec<(PathBuf, Spec)>,
    /// By qualified name: the spec and the device in it.
    by_name: BTreeMap<String, (usize, usize)>,
    /// Files that cannot be read, with the reason.
    unreadable: Vec<String>,
}

impl Devices {
    /// Reads the files of `dirs`; a device of a later directory hides one of the same name in an earlier one.
    /// Directories that are not there have no devices.
    pub(crate) fn load(dirs: &[PathBuf]) -> Devices {
        let mut devices = Devices::default();
        for dir in dirs {
            let entries = fs::read_dir(dir).into_iter().flatten().flatten();
            let mut files: Vec<PathBuf> =
                entries.map(|entry| entry.path()).filter(|path| is_spec(path)).collect();
            files.sort();
            for file in files {
                match read(&file) {
                    Ok(spec) => devices.add(file, spec),
                    Err(why) => devices.unreadable.push(format!("{}: {why}", file.display())),
                }
            }
        }
        devices
    }

    fn add(&mut self, file: PathBuf, spec: Spec) {
        for (number, device) in spec.devices.iter().enumerate() {
            self.by_name.insert(format!("{}={}", spec.kind, device.name), (self.specs.len(), number));
        }
        self.specs.push((file, spec));
    }

    /// What the wanted devices add.
    ///
    /// # Errors
    /// [`OpsError::NoDevice`] for a required one that is not there, [`OpsError::DevicesNotAllowed`] for those that
    /// `allowed` has no entitlement for, [`OpsError::Unsupported`] for what a spec says and cannot be had here.
    pub(crate) fn edits(&self, wanted: &[Device], allowed: &BTreeSet<String>) -> Result<Edits, OpsError> {
        let mut names: Vec<&str> = Vec::new();
        for device in wanted {
            let found = self.find(&device.name);
            if found.is_empty() && device.required {
                return Err(OpsError::NoDevice {
                    name: device.name.clone(),
                    unreadable: self.unreadable.clone(),
                });
            }
            names.extend(found.into_iter().filter(|name| !names.contains(name)).collect::<Vec<_>>());
        }
        self.check(&names, allowed)?;
        let mut edits = Edits::default();
        let mut specs = BTreeSet::new();
        for name in names {
            let Some((spec, device)) = self.by_name.get(name) else { continue };
            let (file, document) = &self.specs[*spec];
            if specs.insert(*spec) {
                edits.add(&document.container_edits, file)?;
            }
            edits.add(&document.devices[*device].container_edits, file)?;
        }
        Ok(edits)
    }

    /// The qualified names that `name` stands for: a device, all or the first one of a kind, or those of a class.
    fn find(&self, name: &str) -> Vec<&str> {
        let (kind, device) = name.split_once('=').unwrap_or((name, ""));
        let of_kind = || {
            let names = self.by_name.keys().map(String::as_str);
            names.filter(|name| name.split_once('=').is_some_and(|(found, _)| found == kind))
        };
        let found: Vec<&str> = match device {
            _ if !kind.contains('/') => Vec::new(),
            "" => of_kind().take(1).collect(),
            "*" => of_kind().collect(),
            _ => of_kind().filter(|found| *found == name).collect(),
        };
        if !found.is_empty() {
            return found;
        }
        let names = self.by_name.keys().map(String::as_str);
        names.filter(|found| self.annotation(found, CLASS) == Some(name)).collect()
    }

    /// An annotation of the device, else of its spec.
    fn annotation(&self, name: &str, key: &str) -> Option<&str> {
        let (spec, device) = self.by_name.get(name)?;
        let spec = &self.specs[*spec].1;
        let own = spec.devices[*device].annotations.get(key);
        own.or_else(|| spec.annotations.get(key)).map(String::as_str)
    }

    fn is_free(&self, name: &str) -> bool {
        self.annotation(name, AUTO_ALLOW).is_some_and(|value| matches!(value, "true" | "1"))
    }

    fn check(&self, names: &[&str], allowed: &BTreeSet<String>) -> Result<(), OpsError> {
        if allowed.contains(ENTITLEMENT) {
            return Ok(());
        }
        let granted = allowed.iter().filter_map(|entitlement| entitlement.strip_prefix("device="));
        let granted: BTreeSet<&str> = granted.flat_map(|name| self.find(name)).collect();
        let forbidden = names.iter().filter(|name| !self.is_free(name) && !granted.contains(**name));
        let forbidden: Vec<String> = forbidden.map(|name| (*name).to_owned()).collect();
        if forbidden.is_empty() { Ok(()) } else { Err(OpsError::DevicesNotAllowed { names: forbidden }) }
    }
}

impl Edits {
    fn add(&mut self, more: &SpecEdits, file: &Path) -> Result<(), OpsError> {
        let refused = [
            (!more.hooks.is_empty(), "hooks"),
            (!more.net_devices.is_empty(), "network devices"),
            (more.intel_rdt.is_some(), "cache allocation (intelRdt)"),
        ];
        if let Some((_, what)) = refused.iter().find(|(has, _)| *has) {
            let what = format!("the device has {what} in `{}`, which is not supported", file.display());
            return Err(OpsError::Unsupported { what });
        }
        self.env.extend(more.env.iter().cloned());
        for node in &more.device_nodes {
            let source = node.host_path.clone().unwrap_or_else(|| PathBuf::from(&node.path));
            self.nodes.retain(|(_, target)| *target != node.path);
            self.nodes.push((source, node.path.clone()));
        }
        for mount in &more.mounts {
            let target = mount.container_path.clone();
            self.mounts.retain(|known| known.target != target);
            let readonly = mount.options.iter().any(|option| option == "ro");
            self.mounts.push(HostMount { source: mount.host_path.clone(), target, readonly });
        }
        self.groups.extend(more.groups.iter().filter(|group| **group != 0));
        Ok(())
    }
}

fn is_spec(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "json" || extension == "yaml")
}

fn read(file: &Path) -> Result<Spec, String> {
    let text = fs::read_to_string(file).map_err(|error| error.to_string())?;
    if file.extension().is_some_and(|extension| extension == "json") {
        return serde_json::from_str(&text).map_err(|error| error.to_string());
    }
    serde_saphyr::from_str(&text)
        .map_err(|error| error.to_string().lines().next().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use lapstrake_diag::Reported as _;

    use super::*;

    const YAML: &str = "cdiVersion: 0.6.0
kind: vendor.com/gpu
annotations: {org.mobyproject.buildkit.device.class: fast}
containerEdits: {env: [ALL=1], additionalGids: [0, 44]}
devices:
- name: one
  containerEdits:
    env: [ONE=1]
    deviceNodes: [{path: /dev/one, hostPath: /dev/null}, {path: /dev/two, type: c, major: 1, minor: 3}]
    mounts: [{hostPath: /usr, containerPath: /opt/usr, options: [ro, nosuid, rbind]}]
- name: two
  annotations: {org.mobyproject.buildkit.device.autoallow: \"true\"}
  containerEdits: {env: [TWO=1]}
";
    const JSON: &str = r#"{"cdiVersion": "0.6.0", "kind": "vendor.com/hooked", "devices": [
        {"name": "x", "containerEdits": {"hooks": [{"hookName": "createContainer", "path": "/bin/x"}]}}]}"#;

    fn devices() -> (tempfile::TempDir, Devices) {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("gpu.yaml"), YAML).unwrap();
        fs::write(dir.path().join("hooked.json"), JSON).unwrap();
        fs::write(dir.path().join("broken.json"), "{").unwrap();
        fs::write(dir.path().join("other.txt"), "{").unwrap();
        let devices = Devices::load(&[dir.path().join("missing"), dir.path().to_owned()]);
        (dir, devices)
    }

    fn wanted(name: &str, required: bool) -> Vec<Device> {
        vec![Device { name: name.to_owned(), required }]
    }

    #[test]
    fn names() {
        let (_dir, devices) = devices();
        let table: [(&str, &[&str]); 8] = [
            ("vendor.com/gpu=one", &["vendor.com/gpu=one"]),
            ("vendor.com/gpu", &["vendor.com/gpu=one"]),
            ("vendor.com/gpu=*", &["vendor.com/gpu=one", "vendor.com/gpu=two"]),
            ("fast", &["vendor.com/gpu=one", "vendor.com/gpu=two"]),
            ("vendor.com/gpu=three", &[]),
            ("vendor.com/gp", &[]),
            ("slow", &[]),
            ("", &[]),
        ];
        for (name, expected) in table {
            assert_eq!(devices.find(name), expected, "{name}");
        }
    }

    #[test]
    fn all_devices_are_listed() {
        let (dir, _devices) = devices();
        let known = known_devices(&[dir.path().to_owned()]);
        let named: Vec<(&str, bool)> = known.iter().map(|one| (one.name.as_str(), one.is_free)).collect();
        let expected =
            [("vendor.com/gpu=one", false), ("vendor.com/gpu=two", true), ("vendor.com/hooked=x", false)];
        assert_eq!(named, expected);
        assert_eq!(known[1].annotations.keys().collect::<Vec<_>>(), [AUTO_ALLOW, CLASS]);
        assert_eq!(known_devices(&[dir.path().join("missing")]), []);
    }

    #[test]
    fn edits_of_a_device() {
        let (_dir, devices) = devices();
        let all = BTreeSet::from(["device".to_owned()]);
        let edits = devices.edits(&wanted("vendor.com/gpu=one", true), &all).unwrap();
        assert_eq!(edits.env, ["ALL=1", "ONE=1"]);
        assert_eq!(edits.groups, BTreeSet::from([44]));
        let node = |host: &str, target: &str| (PathBuf::from(host), target.to_owned());
        assert_eq!(edits.nodes, [node("/dev/null", "/dev/one"), node("/dev/two", "/dev/two")]);
        assert!(edits.mounts[0].readonly && edits.mounts[0].target == "/opt/usr");
        assert_eq!(devices.edits(&wanted("nothing", false), &all).unwrap(), Edits::default());
        let error = devices.edits(&wanted("nothing", true), &all).unwrap_err();
        assert_eq!(error.to_string(), "required device \"nothing\" is not registered");
        assert!(error.hint().is_some_and(|hint| hint.contains("broken.json")));
        let error = devices.edits(&wanted("vendor.com/hooked=x", true), &all).unwrap_err();
        assert!(error.to_string().contains("has hooks in"), "{error}");
    }

    #[test]
    fn leave_is_needed() {
        let (_dir, devices) = devices();
        let none = BTreeSet::new();
        assert!(devices.edits(&wanted("vendor.com/gpu=two", true), &none).is_ok());
        let error = devices.edits(&wanted("fast", true), &none).unwrap_err();
        assert_eq!(error.to_string(), "device vendor.com/gpu=one is requested by the build but not allowed");
        let hint = error.hint().unwrap_or_default();
        assert!(hint.starts_with("allow it with `--allow device=vendor.com/gpu=one`; "), "{hint}");
        assert!(hint.contains("docker/dockerfile:1-labs"), "{hint}");
        let one = BTreeSet::from(["device=vendor.com/gpu=one".to_owned()]);
        assert!(devices.edits(&wanted("fast", true), &one).is_ok());
    }
}
