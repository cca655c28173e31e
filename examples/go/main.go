// Guestbook is a small real app: visitors leave a line, everybody reads them.
package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"html/template"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"
)

// greeting heads the page. Change it, deploy again, reload.
const greeting = "Hello from Go"

//go:embed page.html
var pageHTML string

var page = template.Must(template.New("page").Parse(pageHTML))

// Entry is what one visitor wrote.
type Entry struct {
	Name, Text string
	At         time.Time
}

// Book holds the latest entries. It is safe for concurrent use.
type Book struct {
	mu      sync.RWMutex
	entries []Entry // the newest first
}

const (
	maxEntries = 100
	maxName    = 40
	maxText    = 280
)

var errEmpty = errors.New("write something first")

// Add keeps an entry, shortened to what the page has room for.
func (b *Book) Add(name, text string, at time.Time) error {
	name, text = shorten(name, maxName), shorten(text, maxText)
	if text == "" {
		return errEmpty
	}
	if name == "" {
		name = "somebody"
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.entries = append([]Entry{{name, text, at}}, b.entries...)
	b.entries = b.entries[:min(len(b.entries), maxEntries)]
	return nil
}

// Entries returns the entries, the newest first.
func (b *Book) Entries() []Entry {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return append([]Entry(nil), b.entries...)
}

func shorten(s string, n int) string {
	r := []rune(strings.TrimSpace(s))
	return string(r[:min(len(r), n)])
}

// handler returns the app's pages.
func handler(book *Book, host string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		data := struct {
			Greeting, Host string
			Entries        []Entry
		}{greeting, host, book.Entries()}
		if err := page.Execute(w, data); err != nil {
			slog.Error("page not written", "error", err)
		}
	})
	mux.HandleFunc("POST /{$}", func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, 16<<10)
		if err := r.ParseForm(); err != nil {
			http.Error(w, "that is too long", http.StatusRequestEntityTooLarge)
			return
		}
		if err := book.Add(r.PostFormValue("name"), r.PostFormValue("text"), time.Now()); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		http.Redirect(w, r, "/", http.StatusSeeOther)
	})
	return mux
}

func main() {
	if err := run(); err != nil {
		slog.Error("guestbook ended", "error", err)
		os.Exit(1)
	}
}

func run() error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	port := os.Getenv("PORT")
	if port == "" {
		port = "8080"
	}
	host, _ := os.Hostname()
	server := &http.Server{Addr: ":" + port, Handler: handler(&Book{}, host), ReadHeaderTimeout: 10 * time.Second}

	failed := make(chan error, 1)
	go func() { failed <- server.ListenAndServe() }()
	slog.Info("guestbook is open", "port", port)
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	slog.Info("guestbook closes")
	finish, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	return server.Shutdown(finish)
}
