package registry

import (
	"encoding/base64"
	"net/http"
	"testing"
)

// FuzzTokenOf gives the registry any Authorization header.
func FuzzTokenOf(f *testing.F) {
	for _, s := range []string{"Bearer t", "bearer  t", "Basic " + base64.StdEncoding.EncodeToString([]byte("u:p")), "Basic Og==", "Basic", "Bearer", "", "Negotiate x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, header string) {
		r := &http.Request{Header: http.Header{"Authorization": {header}}}
		token, ok := tokenOf(r)
		if ok && token == "" {
			t.Errorf("%q passes as a token of no characters", header)
		}
		if _, _, basic := r.BasicAuth(); header == "" && (ok || basic) {
			t.Error("no header passes as a token")
		}
	})
}
