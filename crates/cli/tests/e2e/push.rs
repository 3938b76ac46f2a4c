//! Images on their way out: pushed to a real registry, with and without a login, saved and loaded again.

use std::fs;
use std::process::Output;

use super::place::{Mode, dockerfile, expect, lap, must, nothing_left, script, text};
use lapstrake_testkit::Registry;

pub(super) const CASES: &[super::Case] = &[
    ("push", push),
    ("push_with_login", push_with_login),
    ("all_tags", all_tags),
    ("save_and_load", save_and_load),
    ("old_archive", old_archive),
];

/// Of the user `me`, whose password is `secret`.
pub(super) const HTPASSWD: &str = "me:$2a$05$DmxPYowgPkyl9ZC8GQIgruC41A7wGEzVQEWl.MZeROUw15vz2wJgO\n";

/// More than a megabyte, so that it goes in parts; a layer of a base; a small one.
const APP: &str =
    "FROM busybox\nRUN head -c 3000000 /dev/urandom > /big\nRUN echo pushed > /x\nCMD [\"cat\", \"/x\"]\n";

/// Runs commands with a state directory that is empty at first.
fn elsewhere(mode: &Mode, commands: &str) -> Result<Output, String> {
    let state = format!("{}/push-{}", mode.place.display(), mode.name);
    must(&format!("rm -rf '{state}'"))?;
    script(mode, &format!("export LAPSTRAKE_ROOT='{state}' && {commands}"))
}

fn without(output: &Output, word: &str) -> Result<(), String> {
    let all = text(output);
    if all.contains(word) { Err(format!("`{word}` is in: {all}")) } else { Ok(()) }
}

fn push(mode: &Mode) -> Result<(), String> {
    let server = Registry::start(&mode.place, "registry", "")?;
    let name = format!("{}/team/app", server.address);
    dockerfile(mode, "pushed", APP)?;
    let first = lap(mode, &format!("build -t {name}:1 --push --metadata-file meta.json pushed"))?;
    expect(&first, 0, &["pushing sha256:", &format!("pushing manifest for {name}:1@sha256:")])?;
    let inspect = |tag: &str| {
        let skopeo = format!("skopeo inspect --raw --tls-verify=false docker://{name}:{tag}");
        script(mode, &skopeo)
    };
    let seen = inspect("1")?;
    expect(&seen, 0, &["application/vnd.oci.image.layer.v1.tar+gzip"])?;
    let digest = script(mode, "grep -o 'containerimage.digest.*' meta.json")?;
    expect(&digest, 0, &["sha256:"])?;
    expect(
        &elsewhere(mode, &format!("./lapstrake pull {name}:1 && ./lapstrake run {name}:1"))?,
        0,
        &["pushed"],
    )?;
    // What is there is not sent again, under whatever name.
    let again = lap(mode, &format!("push {} {name}:1", "-q"))?;
    expect(&again, 0, &[&name])?;
    expect(&lap(mode, &format!("tag {name}:1 {}/other/app:2", server.address))?, 0, &[])?;
    let mounted = lap(mode, &format!("push {}/other/app:2", server.address))?;
    expect(&mounted, 0, &["2: digest: sha256:"])?;
    without(&mounted, "pushing sha256:")?;
    let zstd =
        format!("build -q -o type=registry,name={name}:z,compression=zstd,force-compression=true pushed");
    expect(&lap(mode, &zstd)?, 0, &["sha256:"])?;
    expect(&inspect("z")?, 0, &["application/vnd.oci.image.layer.v1.tar+zstd"])?;
    expect(
        &elsewhere(
            mode,
            &format!("./lapstrake run {name}:z; ./lapstrake pull -q {name}:z && ./lapstrake run {name}:z"),
        )?,
        0,
        &["pushed"],
    )?;
    let docker =
        format!("build -q -o type=registry,name={name}:d,oci-mediatypes=false,push-by-digest=true pushed");
    expect(&lap(mode, &docker)?, 0, &["sha256:"])?;
    expect(&inspect("d")?, 1, &[])?;
    super::conform::pushed(&mode.place.join("registry"))?;
    let failed = lap(mode, "build -q --push pushed")?;
    expect(&failed, 2, &["pushing needs an image name"])?;
    drop(server);
    expect(&lap(mode, &format!("push {name}:1"))?, 3, &["cannot reach registry"])?;
    nothing_left(mode)
}

/// All tags of a name, there and back, in the registry's pages.
fn all_tags(mode: &Mode) -> Result<(), String> {
    let server = Registry::start(&mode.place, "registry", "")?;
    let name = format!("{}/team/tagged", server.address);
    let tag = |tag: &str| format!("./lapstrake tag busybox {name}:{tag}");
    let tagged: Vec<String> = ["one", "two", "three"].map(tag).into();
    let others = format!("./lapstrake tag busybox {name}-not:four && ./lapstrake push -q {name}-not:four");
    expect(&script(mode, &format!("{} && {others}", tagged.join(" && ")))?, 0, &["-not:four"])?;
    expect(&lap(mode, &format!("push -a {name}:one"))?, 2, &["a tag can't be used with --all-tags"])?;
    expect(&lap(mode, &format!("push -a {name}-none"))?, 1, &["no image here is called"])?;
    expect(
        &lap(mode, &format!("push --all-tags {name}"))?,
        0,
        &["one: digest: sha256:", "two: digest", "three: d"],
    )?;
    let quiet = lap(mode, &format!("push -aq {name}"))?;
    if quiet.stdout != format!("{name}\n").as_bytes() {
        return Err(text(&quiet));
    }
    let pulled = elsewhere(
        mode,
        &format!("./lapstrake pull -a {name} && ./lapstrake images --format '{{{{.Tag}}}}' {name} | sort"),
    )?;
    let words = ["two: Pulling from team/tagged", "Downloaded newer image", "one\nthree\ntwo\n"];
    expect(&pulled, 0, &words)?;
    without(&pulled, "four")?;
    expect(&elsewhere(mode, &format!("./lapstrake pull -a {name}-none"))?, 1, &["not found"])?;
    expect(
        &lap(mode, &format!("push --platform linux/s390x {name}:one"))?,
        1,
        &["is for linux/", "not linux/s390x"],
    )?;
    other_platform(mode, &format!("{name}:one"))?;
    nothing_left(mode)
}

/// What is no list is pulled whatever it is for, and who asked for another platform is told.
fn other_platform(mode: &Mode, name: &str) -> Result<(), String> {
    let warning = format!("WARNING: image with reference {name} was found but its platform (linux/");
    let asked = elsewhere(mode, &format!("./lapstrake pull --platform linux/s390x {name}"))?;
    let words = [warning.as_str(), ") does not match the specified platform (linux/s390x)", "Status: "];
    expect(&asked, 0, &words)?;
    let plain = elsewhere(mode, &format!("./lapstrake pull {name}"))?;
    expect(&plain, 0, &["Status: "])?;
    without(&plain, "WARNING")
}

fn push_with_login(mode: &Mode) -> Result<(), String> {
    let htpasswd = mode.place.join("htpasswd");
    fs::write(&htpasswd, HTPASSWD).map_err(|error| error.to_string())?;
    let auth = format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", htpasswd.display());
    let server = Registry::start(&mode.place, "registry", &auth)?;
    let name = format!("{}/team/secret:1", server.address);
    dockerfile(mode, "pushed", "FROM busybox\nRUN echo pushed > /x\n")?;
    let docker = "export DOCKER_CONFIG=$PWD/docker-login && ./lapstrake";
    let refused = script(mode, &format!("{docker} build -t {name} --push pushed"))?;
    expect(&refused, 1, &["denied access", "lapstrake login"])?;
    let login = |password: &str| {
        let login = format!("login -u me --password-stdin {}", server.address);
        script(mode, &format!("echo {password} | ({docker} {login})"))
    };
    expect(&login("wrong")?, 1, &["denied access"])?;
    let typed = script(mode, &format!("{docker} login -u me -p wrong {}", server.address))?;
    expect(&typed, 1, &["Using --password via the CLI is insecure", "denied access"])?;
    let typed = script(mode, &format!("{docker} login -u me --password=secret {}", server.address))?;
    expect(&typed, 0, &["Login Succeeded"])?;
    expect(&login("secret")?, 0, &["Login Succeeded"])?;
    expect(&script(mode, "stat -c %a docker-login/config.json")?, 0, &["600"])?;
    let pushed = script(mode, &format!("{docker} build -t {name} --push pushed"))?;
    expect(&pushed, 0, &["pushing manifest for"])?;
    without(&pushed, "secret\"")?;
    expect(&elsewhere(mode, &format!("{docker} pull -q {name}"))?, 0, &[&name])?;
    expect(&script(mode, &format!("{docker} logout {}", server.address))?, 0, &["Removing login"])?;
    expect(&elsewhere(mode, &format!("{docker} pull -q {name}"))?, 1, &["denied access"])?;
    nothing_left(mode)
}

/// `docker save` of old leaves layers uncompressed, and says nothing of them.
const OLD_ARCHIVE: &str = "rm -rf old && mkdir old && tar -C old -xf saved.tar && cd old && python3 -c 'import glob, gzip, hashlib, json, os\nm = json.load(open(\"manifest.json\"))\nfor n, l in enumerate(m[0][\"Layers\"]):\n    open(f\"{n}.tar\", \"wb\").write(gzip.open(l).read()); m[0][\"Layers\"][n] = f\"{n}.tar\"\nos.rename(m[0][\"Config\"], \"c.json\"); m[0][\"Config\"] = \"c.json\"; m[0][\"RepoTags\"] = [\"old:1\"]\njson.dump(m, open(\"manifest.json\", \"w\"))' && tar -cf ../old.tar manifest.json c.json *.tar && cd .. && rm -rf old";

fn old_archive(mode: &Mode) -> Result<(), String> {
    let server = Registry::start(&mode.place, "registry", "")?;
    dockerfile(mode, "pushed", APP)?;
    expect(&lap(mode, "build -q -t saved:1 pushed")?, 0, &["sha256:"])?;
    expect(
        &script(mode, &format!("rm -f saved.tar && ./lapstrake save -o saved.tar saved:1 && {OLD_ARCHIVE}"))?,
        0,
        &[],
    )?;
    let name = format!("{}/team/old:1", server.address);
    let pushed = format!(
        "./lapstrake load -i old.tar && ./lapstrake inspect old:1 | grep -A5 Layers && ./lapstrake tag old:1 {name} && ./lapstrake push -q {name}"
    );
    let layers = script(mode, "./lapstrake inspect saved:1 | grep -A5 Layers")?;
    let layers = String::from_utf8_lossy(&layers.stdout).into_owned();
    expect(&elsewhere(mode, &pushed)?, 0, &["Loaded image: old:1", &layers])?;
    let seen = script(mode, &format!("skopeo inspect --raw --tls-verify=false docker://{name}"))?;
    expect(&seen, 0, &["application/vnd.oci.image.layer.v1.tar+gzip"])?;
    without(&seen, "tar\"")?;
    expect(
        &elsewhere(mode, &format!("./lapstrake pull -q {name} && ./lapstrake run {name}"))?,
        0,
        &["pushed"],
    )?;
    nothing_left(mode)
}

fn save_and_load(mode: &Mode) -> Result<(), String> {
    dockerfile(mode, "pushed", APP)?;
    expect(&lap(mode, "build -q -t saved:1 pushed")?, 0, &["sha256:"])?;
    let layers = script(mode, "./lapstrake inspect saved:1 | grep -A5 Layers")?;
    expect(&script(mode, "rm -f saved.tar && ./lapstrake save -o saved.tar saved:1")?, 0, &[])?;
    expect(&script(mode, "skopeo inspect docker-archive:saved.tar")?, 0, &["sha256:"])?;
    let load = "./lapstrake load -i saved.tar && ./lapstrake run saved:1 && ./lapstrake inspect saved:1 | grep -A5 Layers";
    let loaded = elsewhere(mode, load)?;
    expect(&loaded, 0, &["Loaded image: saved:1", "pushed", &String::from_utf8_lossy(&layers.stdout)])?;
    expect(&script(mode, "./lapstrake save saved:1 | cmp - saved.tar")?, 0, &[])?;
    nothing_left(mode)
}
