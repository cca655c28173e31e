package api

import (
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseRoute(t *testing.T) {
	const d = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	for path, want := range map[string]route{
		"/v2/":                                  {kind: pingRoute},
		"/v2":                                   {kind: pingRoute},
		"/v2/_catalog":                          {kind: catalogRoute},
		CollectPath:                             {kind: collectRoute},
		"/v2/a/b/blobs/" + d:                    {kind: blobRoute, repo: "a/b", digest: d},
		"/v2/a/blobs/uploads/":                  {kind: uploadsRoute, repo: "a"},
		"/v2/a/blobs/uploads":                   {kind: uploadsRoute, repo: "a"},
		"/v2/a/blobs/uploads/x":                 {kind: uploadRoute, repo: "a", upload: "x"},
		"/v2/a/blobs/uploads/blobs/uploads/x":   {kind: uploadRoute, repo: "a/blobs/uploads", upload: "x"},
		"/v2/a/manifests/latest":                {kind: manifestRoute, repo: "a", tag: "latest"},
		"/v2/a/manifests/manifests/manifests/1": {kind: manifestRoute, repo: "a/manifests/manifests", tag: "1"},
		"/v2/a/manifests/" + d:                  {kind: manifestRoute, repo: "a", digest: d},
		"/v2/a/tags/list":                       {kind: tagsRoute, repo: "a"},
		"/v2/a/tags/tags/list":                  {kind: tagsRoute, repo: "a/tags"},
		"/v2/a/referrers/" + d:                  {kind: referrersRoute, repo: "a", digest: d},
	} {
		got, err := parseRoute(path)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(route{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", path, diff)
		}
	}
	for _, path := range []string{
		"", "/", "/v1/", "/v2/a", "/v2//tags/list", "/v2/tags/list", "/v2/a/tags", "/v2/a/tags/all", "/v2/manifests/latest",
		"/v2/a/blobs/", "/v2/a/blobs/x", "/v2/a/manifests/", "/v2/a/manifests/.x", "/v2/a/manifests/" + strings.Repeat("x", 129), "/v2/a/referrers/latest",
	} {
		if got, err := parseRoute(path); err == nil {
			t.Errorf("%q is understood as %+v", path, got)
		}
	}
}

func FuzzParseRoute(f *testing.F) {
	f.Add("/v2/a/b/manifests/latest")
	f.Add("/v2/a/blobs/uploads/x")
	f.Add("/v2/a/referrers/sha512:0")
	f.Fuzz(func(t *testing.T, path string) {
		got, err := parseRoute(path)
		if err != nil {
			f, ok := err.(*failure)
			if !ok || f.status < 400 || f.status > 499 {
				t.Errorf("%q: %v is no fault of the client", path, err)
			}
			return
		}
		if got.kind > collectRoute && got.repo == "" {
			t.Errorf("%q: %s of no repository", path, got.kind)
		}
		if got.digest != "" && got.digest.Validate() != nil {
			t.Errorf("%q: digest %q", path, got.digest)
		}
	})
}

func TestParseContentRange(t *testing.T) {
	for s, want := range map[string][2]int64{"0-0": {0, 0}, "5-99": {5, 99}} {
		if from, to, ok := parseContentRange(s); !ok || from != want[0] || to != want[1] {
			t.Errorf("%q = %d, %d, %v", s, from, to, ok)
		}
	}
	for _, s := range []string{"", "-", "1-", "-1", "2-1", "+1-2", "1-+2", "1--2", "a-b", "bytes 0-1/2", "0-1/2", "99999999999999999999-1", "0x1-2", " 0-1"} {
		if from, to, ok := parseContentRange(s); ok {
			t.Errorf("%q is understood as %d to %d", s, from, to)
		}
	}
}

func FuzzParseContentRange(f *testing.F) {
	f.Add("0-1")
	f.Add("+0-")
	f.Fuzz(func(t *testing.T, s string) {
		if from, to, ok := parseContentRange(s); ok && (from < 0 || to < from || to-from+1 <= 0) {
			t.Errorf("%q is understood as %d to %d", s, from, to)
		}
	})
}

func TestSize(t *testing.T) {
	for n, want := range map[int64]string{0: "0 bytes", 1023: "1023 bytes", 1 << 20: "1 MiB", 1610612736: "1.5 GiB"} {
		if got := size(n); got != want {
			t.Errorf("size(%d) = %q, want %q", n, got, want)
		}
	}
}

func TestKnownMethod(t *testing.T) {
	if knownMethod(http.MethodPatch) != "PATCH" || knownMethod("BREW") != "other" {
		t.Error("methods become labels as clients like")
	}
}
