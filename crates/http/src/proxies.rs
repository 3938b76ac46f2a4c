//! Proxies, as curl and Go know them.

use reqwest::{ClientBuilder, NoProxy, Proxy};

/// The proxies of a process. The caller reads them from the environment; none is the default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    /// For `http:` addresses, as in `HTTP_PROXY`; empty for none.
    pub http: String,
    /// For `https:` addresses, as in `HTTPS_PROXY`.
    pub https: String,
    /// For all others of these, as in `ALL_PROXY`.
    pub all: String,
    /// Hosts that are asked directly, as in `NO_PROXY`.
    pub direct: String,
}

impl Proxies {
    /// The client goes by these proxies and by no others. A proxy that is no address counts as none, as in curl.
    pub(crate) fn set(&self, builder: ClientBuilder) -> ClientBuilder {
        let direct = NoProxy::from_string(&self.direct);
        // The list knows `*` for names only; curl and Go mean addresses, too.
        let none = self.direct.split(',').any(|host| host.trim() == "*");
        let set = |address: &String| Some(address.clone()).filter(|address| !none && !address.is_empty());
        // What is set for a scheme comes before what is set for all.
        let http = set(&self.http).and_then(|address| Proxy::http(address).ok());
        let https = set(&self.https).and_then(|address| Proxy::https(address).ok());
        let all = set(&self.all).and_then(|address| Proxy::all(address).ok());
        [http, https, all]
            .into_iter()
            .flatten()
            .fold(builder.no_proxy(), |builder, proxy| builder.proxy(proxy.no_proxy(direct.clone())))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use super::*;

    /// A server that answers each request with `answer`.
    fn server(answer: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut request = [0; 4096];
                if stream.read(&mut request).unwrap() > 0 {
                    let length = answer.len();
                    let head =
                        format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
                    stream.write_all(head.as_bytes()).unwrap();
                    stream.write_all(answer.as_bytes()).unwrap();
                }
            }
        });
        address
    }

    fn asked(proxies: &Proxies, url: &str) -> String {
        let client = crate::builder(proxies).tls_certs_only([]).build().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            match client.get(url).send().await {
                Ok(response) => response.text().await.unwrap(),
                Err(error) => format!("error: {error}"),
            }
        })
    }

    #[test]
    fn the_one_for_the_scheme_the_one_for_all_and_none() {
        let (proxy, other, direct) = (server("proxy"), server("other"), server("direct"));
        let url = format!("http://{direct}/");
        let none = Proxies::default();
        assert_eq!(asked(&none, &url), "direct");
        let http =
            Proxies { http: format!("http://{proxy}"), all: format!("http://{other}"), ..none.clone() };
        assert_eq!(asked(&http, &url), "proxy");
        assert_eq!(asked(&http, "http://name.invalid/"), "proxy");
        // Without a scheme, as curl takes it.
        assert_eq!(asked(&Proxies { all: other.clone(), ..none.clone() }, &url), "other");
        for list in ["127.0.0.1", "127.0.0.0/8", "x.example,127.0.0.1", "*"] {
            assert_eq!(asked(&Proxies { direct: list.to_owned(), ..http.clone() }, &url), "direct", "{list}");
        }
        assert_eq!(asked(&Proxies { direct: "x.example".to_owned(), ..http.clone() }, &url), "proxy");
        let only_https = Proxies { https: format!("http://{proxy}"), ..none.clone() };
        assert_eq!(asked(&only_https, &url), "direct");
        assert_eq!(asked(&Proxies { http: "http://[".to_owned(), ..none }, &url), "direct");
    }
}
