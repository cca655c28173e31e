package bases

import (
	"context"
	"fmt"
	"strings"
)

// pythons says which Debian has which Python.
var pythons = map[string]string{"3.11": "bookworm", "3.13": "trixie"}

// preparePython makes python:<3.x>[-<suite>][-slim] of Debian's own Python.
// Like in the official image, `python` and `pip` are there and pip installs
// where it is told, without asking for a virtual environment.
func preparePython(_ context.Context, k *kitchen, tag string) (dish, error) {
	const have = "3.11 (bookworm) and 3.13 (trixie), in the patch version that Debian has"
	version, suite, slim := splitSuite(tag)
	if version == "3" || version == "latest" || version == "" {
		if suite == "" {
			suite = k.DebianSuite
		}
		version = ""
		for v, s := range pythons {
			if s == suite {
				version = v
			}
		}
	}
	if at := pythons[version]; at == "" || suite != "" && suite != at {
		return dish{}, errNoVersion("Python", tag, have)
	} else {
		suite = at
	}
	base, tools := "debian:"+suite+"-slim", ""
	if !slim {
		base, tools = "debian:"+suite, " curl g++ gcc git gnupg libc6-dev libffi-dev libssl-dev make patch pkg-config procps python3-dev unzip wget xz-utils"
	}
	return dish{
		from: fmt.Sprintf("Debian's Python %s (%s)", version, suite),
		dockerfile: `FROM ` + base + `
RUN apt-get update && apt-get install -y --no-install-recommends \
      ca-certificates netbase tzdata python3 python3-pip python3-setuptools python3-venv python3-wheel` + tools + ` \
    && rm -rf /var/lib/apt/lists/* \
    && rm -f /usr/lib/python3*/EXTERNALLY-MANAGED \
    && for name in python python3 python` + version + `; do ln -sf /usr/bin/python` + version + ` /usr/local/bin/$name; done \
    && for name in pip pip3; do ln -sf /usr/bin/pip3 /usr/local/bin/$name; done \
    && pip --version && python --version
ENV LANG=C.UTF-8 PIP_ROOT_USER_ACTION=ignore
CMD ["python3"]
`,
	}, nil
}

// prepareNginx makes nginx of Debian's package, laid out like the official
// image: sites in /etc/nginx/conf.d, files in /usr/share/nginx/html, logs on
// the container's own output.
func prepareNginx(_ context.Context, k *kitchen, tag string) (dish, error) {
	version, suite, _ := splitSuite(tag)
	if version != "" && version != "latest" && version != "stable" {
		return dish{}, errNoVersion("nginx", tag, "latest and stable, which are Debian's")
	}
	if suite == "" {
		suite = k.DebianSuite
	}
	return dish{
		from: "Debian's nginx (" + suite + ")",
		dockerfile: `FROM debian:` + suite + `-slim
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates nginx && rm -rf /var/lib/apt/lists/* \
    && rm -rf /etc/nginx/sites-enabled /etc/nginx/sites-available /etc/nginx/conf.d/* /usr/share/nginx/html /var/www \
    && groupadd --system --gid 101 nginx && useradd --system --uid 101 --gid nginx --no-create-home --home-dir /nonexistent --shell /bin/false nginx \
    && mkdir -p /usr/share/nginx/html && ln -sf /dev/stdout /var/log/nginx/access.log && ln -sf /dev/stderr /var/log/nginx/error.log
COPY <<END /etc/nginx/nginx.conf
user nginx;
worker_processes auto;
error_log /var/log/nginx/error.log notice;
pid /run/nginx.pid;
events { worker_connections 1024; }
http {
    include /etc/nginx/mime.types;
    default_type application/octet-stream;
    access_log /var/log/nginx/access.log combined;
    sendfile on;
    keepalive_timeout 65;
    include /etc/nginx/conf.d/*.conf;
}
END
COPY <<END /etc/nginx/conf.d/default.conf
server {
    listen 80;
    server_name localhost;
    location / {
        root /usr/share/nginx/html;
        index index.html index.htm;
    }
}
END
COPY <<END /usr/share/nginx/html/index.html
<!DOCTYPE html><title>nginx</title><h1>nginx works</h1>
END
EXPOSE 80
STOPSIGNAL SIGQUIT
CMD ["nginx", "-g", "daemon off;"]
`,
	}, nil
}

// prepareBusybox makes busybox of Debian's static package.
func prepareBusybox(_ context.Context, k *kitchen, tag string) (dish, error) {
	if v := strings.TrimSuffix(strings.TrimSuffix(tag, "-glibc"), "-musl"); v != "latest" && v != "stable" && tag != "glibc" {
		return dish{}, errNoVersion("busybox", tag, "latest and stable, which are Debian's")
	}
	return dish{
		from: "Debian's busybox (" + k.DebianSuite + ")",
		dockerfile: `FROM debian:` + k.DebianSuite + `-slim AS debian
RUN apt-get update && apt-get install -y --no-install-recommends busybox-static && rm -rf /var/lib/apt/lists/* \
    && mkdir -p /root-fs/bin /root-fs/etc /root-fs/home /root-fs/root /root-fs/usr/bin /root-fs/usr/sbin /root-fs/sbin /root-fs/var \
    && mkdir -m 1777 /root-fs/tmp && cp /bin/busybox /root-fs/bin/ && chroot /root-fs /bin/busybox --install \
    && printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\n' > /root-fs/etc/passwd \
    && printf 'root:x:0:\nnogroup:x:65534:\n' > /root-fs/etc/group
FROM scratch
COPY --from=debian /root-fs /
CMD ["sh"]
`,
	}, nil
}

// prepareDistroless makes gcr.io/distroless/static-debian12 and -debian13: what
// a static binary needs and no shell. The tag comes as "debian12:nonroot".
func prepareDistroless(_ context.Context, _ *kitchen, tag string) (dish, error) {
	suiteTag, variant, _ := strings.Cut(tag, ":")
	suite := ""
	for _, s := range suites {
		if suiteTag == "debian"+s.number {
			suite = s.name
		}
	}
	if suiteTag == "latest" || suiteTag == "nonroot" { // gcr.io/distroless/static
		suite, variant = "bookworm", suiteTag
	}
	if suite == "" || variant != "latest" && variant != "nonroot" {
		return dish{}, errNoVersion("distroless/static", tag, "static-debian12 and static-debian13, each as latest and nonroot")
	}
	user, home := "0", "/root"
	if variant == "nonroot" {
		user, home = "65532", "/home/nonroot"
	}
	return dish{
		from: "Debian's ca-certificates and tzdata (" + suite + ")",
		dockerfile: `FROM debian:` + suite + `-slim AS debian
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates netbase tzdata && rm -rf /var/lib/apt/lists/* \
    && mkdir -p /root-fs/etc/ssl/certs /root-fs/usr/share /root-fs/root && mkdir -m 1777 /root-fs/tmp \
    && install -d -o 65532 -g 65532 -m 0700 /root-fs/home/nonroot \
    && cp /etc/ssl/certs/ca-certificates.crt /root-fs/etc/ssl/certs/ && cp -a /usr/share/zoneinfo /root-fs/usr/share/ \
    && cp /etc/nsswitch.conf /etc/services /etc/protocols /etc/os-release /root-fs/etc/ \
    && printf 'root:x:0:0:root:/root:/sbin/nologin\nnobody:x:65534:65534:nobody:/nonexistent:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n' > /root-fs/etc/passwd \
    && printf 'root:x:0:\nnobody:x:65534:\nnonroot:x:65532:\n' > /root-fs/etc/group
FROM scratch
COPY --from=debian /root-fs /
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
WORKDIR ` + home + `
USER ` + user + `
`,
	}, nil
}
