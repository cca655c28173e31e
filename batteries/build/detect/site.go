package detect

import "fmt"

// siteDockerfile serves the files in dir.
func (p *project) siteDockerfile(dir string) string {
	from := dir
	if dir == "." {
		from = "."
	} else {
		p.because("the files are in %s/", dir)
	}
	return p.serveSite("COPY "+from+" /site\n", false)
}

// serveSite is nginx for files: compression, ranges, ETags and conditional
// requests, as people expect of a static site, in a process of 3 MB. One page
// applications get their first page for every path; other sites their 404.html.
func (p *project) serveSite(files string, onePage bool) string {
	missing := "=404"
	if onePage {
		missing = "/index.html"
	}
	return fmt.Sprintf(`FROM nginx:stable
COPY <<'END' /etc/nginx/nginx.conf
worker_processes auto;
pid /tmp/nginx.pid;
error_log /dev/stderr warn;
events { worker_connections 4096; }
http {
    include mime.types;
    default_type application/octet-stream;
    access_log /dev/stdout;
    server_tokens off;
    sendfile on;
    tcp_nopush on;
    gzip on;
    gzip_vary on;
    gzip_types text/css text/plain text/xml application/javascript application/json application/xml image/svg+xml;
    client_body_temp_path /tmp/body;
    proxy_temp_path /tmp/proxy;
    fastcgi_temp_path /tmp/fastcgi;
    uwsgi_temp_path /tmp/uwsgi;
    scgi_temp_path /tmp/scgi;
    server {
        listen %d;
        root /site;
        index index.html;
        absolute_redirect off;
        error_page 404 /404.html;
        location / { try_files $uri $uri/ $uri.html %s; }
    }
}
END
%sENV PORT=%d
EXPOSE %d
USER 101:101
CMD ["nginx", "-g", "daemon off;"]
`, Port, missing, files, Port, Port)
}
