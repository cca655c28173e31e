package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// answering returns a client of a server that answers like this.
func answering(t *testing.T, answer http.HandlerFunc) *Client {
	t.Helper()
	srv := httptest.NewTLSServer(answer)
	t.Cleanup(srv.Close)
	return &Client{http: srv.Client(), creds: Credentials{Server: strings.TrimPrefix(srv.URL, "https://"), Username: "u", Password: "secret"}}
}

func TestPages(t *testing.T) {
	c := answering(t, func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "u" || password != "secret" {
			t.Errorf("credentials %q, %q", user, password)
		}
		switch r.URL.RequestURI() {
		case "/v2/demo/a/tags/list":
			w.Header().Set("Link", `</v2/demo/a/tags/list?last=b>; rel="next"`)
			fmt.Fprint(w, `{"tags":["a","b"]}`)
		case "/v2/demo/a/tags/list?last=b":
			fmt.Fprint(w, `{"tags":["c"]}`)
		case "/v2/_catalog?namespace=demo":
			fmt.Fprint(w, `{"repositories":["demo/a"]}`)
		default:
			http.NotFound(w, r)
		}
	})
	if tags, err := c.Tags(context.Background(), "demo/a"); err != nil || !cmp.Equal(tags, []string{"a", "b", "c"}) {
		t.Errorf("tags %v, %v", tags, err)
	}
	if names, err := c.Repositories(context.Background(), "demo"); err != nil || !cmp.Equal(names, []string{"demo/a"}) {
		t.Errorf("repositories %v, %v", names, err)
	}
	if _, err := c.Tags(context.Background(), "demo/b"); !errors.Is(err, ErrNotFound) {
		t.Errorf("tags of nothing: %v, want ErrNotFound", err)
	}
}

func TestRefusal(t *testing.T) {
	c := answering(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprint(w, `{"errors":[{"code":"DENIED","message":"you may not"}]}`)
	})
	_, err := c.Collect(context.Background())
	if diff := cmp.Diff(error(&Error{Status: 403, Code: "DENIED", Message: "you may not"}), err); diff != "" {
		t.Errorf("error (-want +got):\n%s", diff)
	}
}

// TestStaysHome shows that a password goes to the registry and nowhere else,
// whatever a listing says where it goes on.
func TestStaysHome(t *testing.T) {
	elsewhere := answering(t, func(http.ResponseWriter, *http.Request) { t.Error("another server was asked") })
	c := answering(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", `<https://`+elsewhere.creds.Server+`/v2/>; rel="next"`)
		fmt.Fprint(w, `{"tags":["a"]}`)
	})
	if _, err := c.Tags(context.Background(), "demo/a"); err == nil {
		t.Error("a listing that goes on elsewhere was followed")
	}
}
