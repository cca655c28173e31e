package main

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
)

func TestGuestbook(t *testing.T) {
	server := httptest.NewServer(handler(&Book{}, "here"))
	defer server.Close()
	resp, err := http.PostForm(server.URL, url.Values{"name": {"Ada"}, "text": {"<b>hello</b>"}})
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body := new(strings.Builder)
	if err := resp.Write(body); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{greeting, "Ada", "&lt;b&gt;hello&lt;/b&gt;", "served by here"} {
		if !strings.Contains(body.String(), want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	resp, err = http.PostForm(server.URL, url.Values{"text": {"  "}})
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusBadRequest {
		t.Errorf("an empty entry gives %s", resp.Status)
	}
}

func TestBookForgetsTheOldest(t *testing.T) {
	var b Book
	for range maxEntries + 5 {
		if err := b.Add("", strings.Repeat("ä", maxText+9), time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(b.Entries()); n != maxEntries {
		t.Errorf("%d entries, want %d", n, maxEntries)
	}
	if n := len([]rune(b.Entries()[0].Text)); n != maxText {
		t.Errorf("an entry has %d characters, want %d", n, maxText)
	}
}
