package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// setup is what a proxy is to do in one case. Route n serves the host
// app-n.example.org under the paths / and /api, and all lead to one backend.
type setup struct {
	routes            int
	plain, secure     int // ports on 127.0.0.1
	backend           string
	cert, key, folder string
}

// hosts names the routes' hosts.
func (s setup) hosts() []string {
	out := make([]string, s.routes)
	for i := range out {
		out[i] = fmt.Sprintf("app-%d.example.org", i)
	}
	return out
}

// paths are what each host has.
var paths = []string{"/", "/api"}

// idleConnections is how many idle connections to the backend each proxy may
// keep: more than there are clients.
const idleConnections = 256

// file writes a file into the case's folder and returns its path.
func (s setup) file(name, text string) (string, error) {
	path := filepath.Join(s.folder, name)
	return path, os.WriteFile(path, []byte(text), 0o600)
}

// configure writes a proxy's configuration and returns its command line.
type configure func(s setup, program string) ([]string, error)

// emeraldProxy is our data plane as the battery runs it, without a cluster.
func emeraldProxy(s setup, program string) ([]string, error) {
	return []string{program, "-routes", strconv.Itoa(s.routes), "-http", strconv.Itoa(s.plain), "-https", strconv.Itoa(s.secure),
		"-backend", s.backend, "-cert", s.cert, "-key", s.key}, nil
}

// nginxProxy has one server block per host and one location per path.
func nginxProxy(s setup, program string) ([]string, error) {
	var c strings.Builder
	fmt.Fprintf(&c, `worker_processes 1;
daemon off;
pid %[1]s/nginx.pid;
error_log stderr crit;
events { worker_connections 4096; }
http {
	access_log off;
	server_tokens off;
	keepalive_requests 1000000000;
	server_names_hash_max_size 65536;
	server_names_hash_bucket_size 128;
	client_body_temp_path %[1]s/nginx-body;
	proxy_temp_path %[1]s/nginx-proxy;
	fastcgi_temp_path %[1]s/nginx-fastcgi;
	uwsgi_temp_path %[1]s/nginx-uwsgi;
	scgi_temp_path %[1]s/nginx-scgi;
	ssl_certificate %[2]s;
	ssl_certificate_key %[3]s;
	ssl_protocols TLSv1.2 TLSv1.3;
	ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256;
	proxy_http_version 1.1;
	proxy_set_header Connection "";
	proxy_set_header Host $host;
	proxy_set_header X-Forwarded-For $remote_addr;
	proxy_set_header X-Forwarded-Host $host;
	proxy_set_header X-Forwarded-Proto $scheme;
	upstream app { server %[4]s; keepalive %[5]d; keepalive_requests 1000000000; }
	server { listen 127.0.0.1:%[6]d default_server; listen 127.0.0.1:%[7]d ssl default_server; return 404; }
`, s.folder, s.cert, s.key, s.backend, idleConnections, s.plain, s.secure)
	for _, host := range s.hosts() {
		fmt.Fprintf(&c, "\tserver {\n\t\tlisten 127.0.0.1:%d;\n\t\tlisten 127.0.0.1:%d ssl;\n\t\tserver_name %s;\n", s.plain, s.secure, host)
		for _, path := range paths {
			fmt.Fprintf(&c, "\t\tlocation %s { proxy_pass http://app; }\n", path)
		}
		c.WriteString("\t}\n")
	}
	c.WriteString("}\n")
	path, err := s.file("nginx.conf", c.String())
	return []string{program, "-c", path, "-e", "stderr"}, err
}

// haproxyProxy looks host and path up in one map, which is a tree.
func haproxyProxy(s setup, program string) ([]string, error) {
	var routes strings.Builder
	for _, host := range s.hosts() {
		for _, path := range paths {
			fmt.Fprintf(&routes, "%s%s app\n", host, path)
		}
	}
	table, err := s.file("haproxy.map", routes.String())
	if err != nil {
		return nil, err
	}
	// haproxy wants both in one file.
	var pair []byte
	for _, f := range []string{s.cert, s.key} {
		raw, err := os.ReadFile(f)
		if err != nil {
			return nil, err
		}
		pair = append(pair, raw...)
	}
	pem, err := s.file("haproxy.pem", string(pair))
	if err != nil {
		return nil, err
	}
	path, err := s.file("haproxy.cfg", fmt.Sprintf(`global
	nbthread 1
	maxconn 4096
	ssl-default-bind-options ssl-min-ver TLSv1.2
	ssl-default-bind-ciphersuites TLS_AES_128_GCM_SHA256
defaults
	mode http
	timeout connect 3s
	timeout client 75s
	timeout server 60s
	option http-keep-alive
	http-reuse always
	option forwardfor
frontend in
	bind 127.0.0.1:%d
	bind 127.0.0.1:%d ssl crt %s
	http-request set-header X-Forwarded-Proto %%[ssl_fc,iif(https,http)]
	http-request set-header X-Forwarded-Host %%[req.hdr(host)]
	use_backend %%[base,map_beg(%s,none)]
backend app
	server one %s pool-max-conn %d
backend none
	http-request return status 404
`, s.plain, s.secure, pem, table, s.backend, idleConnections))
	return []string{program, "-db", "-q", "-f", path}, err
}

// caddyProxy has one route per host, which ends the search, and in it one per
// path: what Caddy itself makes of a Caddyfile with one site per host.
func caddyProxy(s setup, program string) ([]string, error) {
	type object = map[string]any
	forward := object{
		"handler":   "reverse_proxy",
		"upstreams": []object{{"dial": s.backend}},
		"transport": object{"protocol": "http", "keep_alive": object{"enabled": true, "max_idle_conns_per_host": idleConnections}},
	}
	var routes []object
	for _, host := range s.hosts() {
		var inner []object
		for i := len(paths) - 1; i >= 0; i-- {
			inner = append(inner, object{"match": []object{{"path": []string{strings.TrimSuffix(paths[i], "/") + "/*"}}}, "handle": []object{forward}, "terminal": true})
		}
		routes = append(routes, object{
			"match": []object{{"host": []string{host}}}, "handle": []object{{"handler": "subroute", "routes": inner}}, "terminal": true,
		})
	}
	routes = append(routes, object{"handle": []object{{"handler": "static_response", "status_code": 404}}})
	listen := func(port int) []string { return []string{net.JoinHostPort("127.0.0.1", strconv.Itoa(port))} }
	raw, err := json.Marshal(object{
		"admin":   object{"disabled": true, "config": object{"persist": false}},
		"logging": object{"logs": object{"default": object{"level": "ERROR"}}},
		"apps": object{
			"tls": object{"certificates": object{"load_files": []object{{"certificate": s.cert, "key": s.key}}}},
			"http": object{"servers": object{
				"plain": object{"listen": listen(s.plain), "routes": routes, "automatic_https": object{"disable": true}},
				"secure": object{"listen": listen(s.secure), "routes": routes, "automatic_https": object{"disable": true},
					"tls_connection_policies": []object{{}}, "strict_sni_host": false},
			}},
		},
	})
	if err != nil {
		return nil, err
	}
	path, err := s.file("caddy.json", string(raw))
	return []string{program, "run", "--config", path}, err
}
