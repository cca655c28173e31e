package main

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestDownload(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/source" {
			http.NotFound(w, r)
			return
		}
		w.Write([]byte("as published"))
	}))
	defer server.Close()
	sum := sha256.Sum256([]byte("as published"))
	right := hex.EncodeToString(sum[:])
	for _, tt := range []struct{ reason, path, sum, want string }{
		{"what has the known sum is taken", "/source", right, ""},
		{"another content is refused", "/source", strings.Repeat("0", 64), "its SHA-256 is " + right},
		{"an error page is no source", "/gone", right, "404"},
	} {
		t.Run(tt.reason, func(t *testing.T) {
			raw, err := download(t.Context(), server.URL+tt.path, tt.sum)
			switch {
			case tt.want == "" && (err != nil || string(raw) != "as published"):
				t.Errorf("got %q, %v", raw, err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("got error %v, want one with %q", err, tt.want)
			}
		})
	}
}
