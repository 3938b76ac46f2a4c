//! Registries with TLS of a private authority, with clients' certificates, with a token server, and behind mirrors.

use std::fs;
use std::io::{BufReader, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use super::place::{Mode, dockerfile, expect, lap, must, script, text};
use super::proxy::{Fault, Log, Proxy, Rule, head, header, lock};
use lapstrake_testkit::Registry;

pub(super) const CASES: &[super::Case] = &[
    ("registry_tls", tls),
    ("registry_redirect_certificates", redirected),
    ("registry_token", token),
    ("registry_mirror", mirror),
    ("registry_settings", settings),
    ("registry_referrers", referrers),
];

const APP: &str =
    "FROM busybox\nRUN head -c 2000000 /dev/urandom > /big\nRUN echo secured > /x\nCMD [\"cat\", \"/x\"]\n";

/// An authority, and certificates by it for a server on loopback and for a client.
fn certificates(dir: &Path) -> Result<(), String> {
    fs::create_dir_all(dir).map_err(|error| error.to_string())?;
    must(&format!(
        "cd '{}' && exec 2> log && \
         new() {{ openssl req -new -newkey rsa:2048 -nodes -subj /CN=$1 -keyout $1.key -out $1.csr; }} && \
         openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=ca -days 2 -keyout ca.key -out ca.pem && \
         new server && new client && echo subjectAltName=IP:127.0.0.1 > ext && \
         for n in server client; do openssl x509 -req -in $n.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out $n.pem; done && \
         chmod a+r *",
        dir.display()
    ))
}

fn write(mode: &Mode, name: &str, text: &str) -> Result<(), String> {
    fs::write(mode.place.join(name), text).map_err(|error| error.to_string())
}

fn tls(mode: &Mode) -> Result<(), String> {
    let certs = mode.place.join("certs");
    certificates(&certs)?;
    write(mode, "htpasswd-tls", super::push::HTPASSWD)?;
    let at = certs.display();
    let more = format!(
        "  tls:\n    certificate: {at}/server.pem\n    key: {at}/server.key\n    clientcas: [{at}/ca.pem]\n\
         auth:\n  htpasswd:\n    realm: test\n    path: {}/htpasswd-tls\n",
        mode.place.display()
    );
    let server = Registry::start(&mode.place, "tls", &more)?;
    let name = format!("{}/secure/tls-{}", server.address, mode.name);
    let host = format!("[registry.\"{}\"]\n", server.address);
    let pair = format!(
        "[[registry.\"{}\".keypair]]\nkey = \"{at}/client.key\"\ncert = \"{at}/client.pem\"\n",
        server.address
    );
    write(mode, "full.toml", &format!("{host}ca = [\"{at}/ca.pem\"]\n{pair}"))?;
    write(mode, "no-pair.toml", &format!("{host}ca = [\"{at}/ca.pem\"]\n"))?;
    write(mode, "no-ca.toml", &format!("{host}http = false\n{pair}"))?;
    write(mode, "insecure.toml", &format!("{host}insecure = true\n{pair}"))?;
    dockerfile(mode, "secured", APP)?;
    let with = |file: &str, commands: &str| {
        let setup = format!("export LAPSTRAKE_CONFIG=$PWD/{file} DOCKER_CONFIG=$PWD/docker-tls; ");
        script(mode, &(setup + commands))
    };
    let login = format!("echo secret | ./lapstrake login -u me --password-stdin {}", server.address);
    expect(&with("no-pair.toml", &login)?, 3, &["cannot reach registry"])?;
    expect(&with("no-ca.toml", &login)?, 3, &["cannot reach registry"])?;
    expect(&with("full.toml", &login)?, 0, &["Login Succeeded"])?;
    expect(
        &with("full.toml", &format!("./lapstrake build -q -t {name}:1 --push secured"))?,
        0,
        &["sha256:"],
    )?;
    let state = format!("{}/tls-{}", mode.place.display(), mode.name);
    for file in ["full.toml", "insecure.toml"] {
        must(&format!("rm -rf '{state}'"))?;
        let pull = format!(
            "export LAPSTRAKE_ROOT='{state}'; ./lapstrake pull -q {name}:1 && ./lapstrake run {name}:1"
        );
        expect(&with(file, &pull)?, 0, &["secured\n"]).map_err(|why| format!("{file}: {why}"))?;
    }
    let skopeo = format!("skopeo inspect --cert-dir certs-skopeo --creds me:secret docker://{name}:1");
    let prepare = format!(
        "mkdir -p certs-skopeo && cp '{at}/ca.pem' certs-skopeo/ca.crt && cp '{at}/client.pem' certs-skopeo/client.cert && cp '{at}/client.key' certs-skopeo/client.key && "
    );
    expect(&script(mode, &(prepare + &skopeo))?, 0, &["sha256:"])?;
    must(&format!("rm -rf '{state}'"))
}

/// What is set for a host (its authority, our certificate, that there is no TLS) holds for no host that it sends us to.
fn redirected(mode: &Mode) -> Result<(), String> {
    let certs = mode.place.join("certs-redirect");
    certificates(&certs)?;
    let at = certs.display();
    let tls = format!(
        "  tls:\n    certificate: {at}/server.pem\n    key: {at}/server.key\n    clientcas: [{at}/ca.pem]\n"
    );
    let (here, there) =
        (Registry::start(&mode.place, "here", "")?, Registry::start(&mode.place, "there", &tls)?);
    let proxy = Proxy::start(&here.address)?;
    let name = format!("{}/secure/redirect-{}", proxy.address, mode.name);
    dockerfile(mode, "secured", APP)?;
    expect(&lap(mode, &format!("build -q -t {name}:1 --push secured"))?, 0, &["sha256:"])?;
    let fault = Fault::Redirect(format!("https://{}", there.address));
    let ca = |host: &str| format!("[registry.\"{host}\"]\nca = [\"{at}/ca.pem\"]\n");
    let pair = |host: &str| {
        format!("[[registry.\"{host}\".keypair]]\nkey = \"{at}/client.key\"\ncert = \"{at}/client.pem\"\n")
    };
    let own = format!("{}http = true\n{}", ca(&proxy.address), pair(&proxy.address));
    let state = format!("{}/redirected-{}", mode.place.display(), mode.name);
    for (what, settings, taken) in [
        ("everything of the one host", own.clone(), false),
        ("our certificate only there", own.clone() + &ca(&there.address), false),
        ("no authority there", own.clone() + &pair(&there.address), false),
        ("all of it", ca(&there.address) + &pair(&there.address), true),
    ] {
        write(mode, "redirected.toml", &settings)?;
        proxy.rules(&[Rule { method: "GET", path: "/blobs/", times: 99, fault: fault.clone() }]);
        must(&format!("rm -rf '{state}'"))?;
        let pull = format!(
            "export LAPSTRAKE_CONFIG=$PWD/redirected.toml LAPSTRAKE_ROOT='{state}'; ./lapstrake pull -q {name}:1 && ./lapstrake run {name}:1"
        );
        let pulled = script(mode, &pull)?;
        let words: &[&str] = if taken { &["secured\n"] } else { &["cannot reach registry", &there.address] };
        expect(&pulled, if taken { 0 } else { 3 }, words).map_err(|why| format!("{what}: {why}"))?;
    }
    must(&format!("rm -rf '{state}'"))
}

/// A token server: signs what is asked for, if the login is right.
struct Signer {
    dir: std::path::PathBuf,
    /// The certificate, as it stands in tokens.
    certificate: String,
}

impl Signer {
    fn new(dir: &Path) -> Result<Signer, String> {
        fs::create_dir_all(dir).map_err(|error| error.to_string())?;
        must(&format!(
            "cd '{}' && openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=signer -days 2 -keyout key.pem -out cert.pem 2> log && chmod a+r *",
            dir.display()
        ))?;
        let pem = fs::read_to_string(dir.join("cert.pem")).map_err(|error| error.to_string())?;
        let certificate = pem.lines().filter(|line| !line.starts_with("---")).collect();
        Ok(Signer { dir: dir.to_owned(), certificate })
    }

    fn sign(&self, scopes: &[String]) -> std::io::Result<String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        let access: Vec<serde_json::Value> = scopes
            .iter()
            .filter_map(|scope| {
                let (rest, actions) = scope.rsplit_once(':')?;
                let (kind, name) = rest.split_once(':')?;
                let actions: Vec<&str> = actions.split(',').collect();
                Some(serde_json::json!({"type": kind, "name": name, "actions": actions}))
            })
            .collect();
        let head = serde_json::json!({"typ": "JWT", "alg": "RS256", "x5c": [self.certificate]});
        let claims = serde_json::json!({"iss": "signer", "sub": "me", "aud": "registry", "exp": now + 300,
            "nbf": now - 10, "iat": now, "jti": format!("{now}"), "access": access});
        let encoded = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", encoded(&head), encoded(&claims));
        let mut openssl = Command::new("openssl")
            .args(["dgst", "-sha256", "-sign"])
            .arg(self.dir.join("key.pem"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        if let Some(mut stdin) = openssl.stdin.take() {
            stdin.write_all(signed.as_bytes())?;
        }
        let signature = openssl.wait_with_output()?.stdout;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    fn answer(&self, mut stream: TcpStream, log: &Log) -> std::io::Result<()> {
        let request = head(&mut BufReader::new(stream.try_clone()?))?;
        lock(log).push(request.clone());
        let expected = format!("Basic {}", STANDARD.encode("me:secret"));
        if header(&request, "authorization") != Some(expected.as_str()) {
            return stream
                .write_all(b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        }
        let path = request.split_whitespace().nth(1).unwrap_or_default();
        let scopes: Vec<String> = path
            .split(['?', '&'])
            .filter_map(|pair| pair.strip_prefix("scope="))
            .map(|scope| scope.replace("%3A", ":").replace("%2F", "/").replace("%2C", ","))
            .collect();
        let body = serde_json::json!({"token": self.sign(&scopes)?, "expires_in": 300}).to_string();
        let answer =
            format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
        stream.write_all(answer.as_bytes())
    }
}

/// What the registry has elsewhere is mounted: both repositories are in the token's scope.
fn mounts(mode: &Mode, proxy: &Proxy, tokens: &Proxy, docker: &str) -> Result<(), String> {
    let name = format!("{}/secure/token-{}", proxy.address, mode.name);
    tokens.rules(&[]);
    proxy.rules(&[]);
    let other = format!("{}/other/token-{}", proxy.address, mode.name);
    let mounted = script(mode, &format!("{docker} tag {name}:1 {other}:1 && {docker} push {other}:1"))?;
    expect(&mounted, 0, &["1: digest: sha256:"])?;
    let log = proxy.log();
    if !log.iter().any(|request| request.contains("mount=sha256"))
        || log.iter().any(|r| r.starts_with("PATCH"))
    {
        return Err(format!("nothing was mounted: {log:#?}"));
    }
    Ok(())
}

/// A challenge that names a server in nobody's network.
const ELSEWHERE: &str =
    "401 Unauthorized\r\nwww-authenticate: Bearer realm=\"http://169.254.169.254/token\",service=\"x\"";

fn token(mode: &Mode) -> Result<(), String> {
    let dir = mode.place.join("signer");
    let signer = Signer::new(&dir)?;
    let tokens = Proxy::serve(move |stream, log| signer.answer(stream, log))?;
    let realm = format!("http://{}/token", tokens.address);
    let auth = format!(
        "auth:\n  token:\n    realm: {realm}\n    service: registry\n    issuer: signer\n    rootcertbundle: {}/cert.pem\n",
        dir.display()
    );
    let server = Registry::start(&mode.place, "token", &auth)?;
    let proxy = Proxy::start(&server.address)?;
    dockerfile(mode, "secured", APP)?;
    let name = format!("{}/secure/token-{}", proxy.address, mode.name);
    let docker = "export DOCKER_CONFIG=$PWD/docker-token && ./lapstrake";
    let login = |password: &str| {
        script(mode, &format!("echo {password} | ({docker} login -u me --password-stdin {})", proxy.address))
    };
    expect(&login("wrong")?, 1, &["denied access"])?;
    expect(&login("secret")?, 0, &["Login Succeeded"])?;
    // A token that the registry does not take any more in the middle of things: another one is asked for.
    let challenge = format!(
        "401 Unauthorized\r\nwww-authenticate: Bearer realm=\"{realm}\",service=\"registry\",error=\"invalid_token\""
    );
    let expired = |method, path| Rule { method, path, times: 1, fault: Fault::Answer(challenge.clone()) };
    proxy.rules(&[expired("PATCH", "/uploads/"), expired("PUT", "/uploads/"), expired("PUT", "/manifests/")]);
    tokens.rules(&[]);
    let pushed = script(mode, &format!("{docker} build -t {name}:1 --push secured"))?;
    expect(&pushed, 0, &["pushing manifest for"])?;
    let asked = tokens.log();
    let scope = format!("scope=repository%3Asecure%2Ftoken-{}%3Apull%2Cpush", mode.name);
    if asked.is_empty() || asked.len() > 6 || !asked.iter().all(|request| request.contains(&scope)) {
        return Err(format!("tokens are not asked for as they should be: {asked:#?}"));
    }
    mounts(mode, &proxy, &tokens, docker)?;
    let state = format!("{}/token-{}", mode.place.display(), mode.name);
    must(&format!("rm -rf '{state}'"))?;
    proxy.rules(&[expired("GET", "/blobs/"), expired("GET", "/manifests/")]);
    let pull =
        format!("export LAPSTRAKE_ROOT='{state}' && {docker} pull -q {name}:1 && ./lapstrake run {name}:1");
    let pulled = script(mode, &pull)?;
    expect(&pulled, 0, &["secured\n"])?;
    // A registry that sends the login to somebody who must not have it.
    let fault = Fault::Answer(ELSEWHERE.to_owned());
    proxy.rules(&[Rule { method: "GET", path: "/manifests/", times: 1, fault }]);
    let refused = script(mode, &format!("{docker} pull {name}:1"))?;
    expect(&refused, 1, &["not a safe address"])?;
    for output in [pushed, pulled, refused] {
        let all = text(&output);
        if all.contains("secret") || all.contains(&STANDARD.encode("me:secret")) || all.contains("Bearer ey")
        {
            return Err(format!("a secret is shown: {all}"));
        }
    }
    must(&format!("rm -rf '{state}'"))
}

/// Docker Hub by a mirror with a path, behind one that is not there.
fn mirror(mode: &Mode) -> Result<(), String> {
    let server = Registry::start(&mode.place, "mirror", "")?;
    let name = format!("{}/hub/library/mirrored-{}", server.address, mode.name);
    dockerfile(mode, "secured", APP)?;
    expect(&lap(mode, &format!("build -q -t {name}:1 --push secured"))?, 0, &["sha256:"])?;
    let mirrors =
        format!("[registry.\"docker.io\"]\nmirrors = [\"127.0.0.1:1\", \"{}/hub\"]\n", server.address);
    write(mode, "mirror.toml", &mirrors)?;
    let state = format!("{}/mirror-{}", mode.place.display(), mode.name);
    must(&format!("rm -rf '{state}'"))?;
    dockerfile(mode, "from", &format!("FROM mirrored-{}:1\nRUN test -e /big || exit 0\n", mode.name))?;
    let built = format!(
        "export LAPSTRAKE_ROOT='{state}' LAPSTRAKE_CONFIG=$PWD/mirror.toml && ./lapstrake pull mirrored-{0}:1 && \
         ./lapstrake run mirrored-{0}:1 && ./lapstrake rmi mirrored-{0}:1",
        mode.name
    );
    expect(
        &script(mode, &built)?,
        0,
        &["secured\n", &format!("docker.io/library/mirrored-{}:1", mode.name)],
    )?;
    must(&format!("rm -rf '{state}'"))
}

/// Nobody reads the settings before a registry is asked, and what is wrong with them is said.
fn settings(mode: &Mode) -> Result<(), String> {
    write(mode, "broken.toml", "[registry.\"docker.io\"]\nmirors = []\n")?;
    dockerfile(mode, "secured-not", "FROM busybox\nENV A=b\n")?;
    let broken = "export LAPSTRAKE_CONFIG=$PWD/broken.toml && ./lapstrake";
    expect(&script(mode, &format!("{broken} build -q secured-not"))?, 0, &["sha256:"])?;
    expect(&script(mode, &format!("{broken} pull nobody/has-this"))?, 3, &["broken.toml", "mirors"])?;
    let own = "mkdir -p own/lapstrake && cp broken.toml own/lapstrake/lapstrake.toml && export XDG_CONFIG_HOME=$PWD/own && ./lapstrake pull nobody/has-this";
    expect(&script(mode, own)?, 3, &["own/lapstrake/lapstrake.toml", "mirors"])
}

/// What refers to an image, by the tag that stands in for the API that Debian's registry does not have.
fn referrers(mode: &Mode) -> Result<(), String> {
    let server = Registry::start(&mode.place, "referrers", "")?;
    let name = format!("{}/secure/referrers-{}", server.address, mode.name);
    dockerfile(mode, "secured", APP)?;
    let built = format!("build -q -t {name}:1 --push --metadata-file referrers.json secured");
    expect(&lap(mode, &built)?, 0, &["sha256:"])?;
    expect(&lap(mode, &format!("inspect --referrers {name}:1"))?, 0, &["\"manifests\": []"])?;
    let put = format!(
        "import json, urllib.request\n\
         told = json.load(open('referrers.json'))['containerimage.descriptor']\n\
         kind = 'application/vnd.oci.image.index.v1+json'\n\
         entry = dict(mediaType=told['mediaType'], digest=told['digest'], size=told['size'], artifactType='application/x-signature')\n\
         index = json.dumps(dict(schemaVersion=2, mediaType=kind, manifests=[entry])).encode()\n\
         url = 'http://{}/v2/secure/referrers-{}/manifests/' + told['digest'].replace(':', '-')\n\
         urllib.request.urlopen(urllib.request.Request(url, index, {{'Content-Type': kind}}, method='PUT'))\n",
        server.address, mode.name
    );
    write(mode, "referrers.py", &put)?;
    expect(&script(mode, "python3 referrers.py")?, 0, &[])?;
    expect(&lap(mode, &format!("inspect --referrers {name}:1"))?, 0, &["application/x-signature"])?;
    expect(&lap(mode, &format!("inspect --referrers {name}:none"))?, 1, &["not found"])
}
