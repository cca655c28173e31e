package detect

import (
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
)

// pythonEntries are the files that programs start with, by custom.
var pythonEntries = []string{"app.py", "main.py", "wsgi.py", "asgi.py", "server.py", "application.py"}

// compiled are packages that have no ready-made binaries and are compiled when
// they are installed.
var compiled = []string{"psycopg2", "mysqlclient", "uwsgi", "python-ldap", "pycairo", "pygraphviz", "xmlsec"}

func (p *project) pythonDockerfile() (string, error) {
	version, err := p.pythonVersion()
	if err != nil {
		return "", err
	}
	requirements, err := p.pythonRequirements()
	if err != nil {
		return "", err
	}
	start, err := p.pythonStart(requirements)
	if err != nil {
		return "", err
	}
	image := "python:" + version + "-slim"
	buildImage := image
	if slices.ContainsFunc(compiled, func(c string) bool { return requires(requirements, c) }) {
		p.because("some packages are compiled when they are installed")
		buildImage = "python:" + version
	}
	copies, install := "", ""
	switch {
	case p.has("requirements.txt"):
		copies, install = "COPY requirements*.txt ./\n", "/venv/bin/pip install -r requirements.txt"
	case p.has("pyproject.toml"), p.has("setup.py"):
		copies, install = "COPY . .\n", "/venv/bin/pip install ."
	case p.has("Pipfile"):
		return "", fmt.Errorf("%w: a Pipfile alone does not install; write its packages down: pipenv requirements > requirements.txt", ErrUnknown)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "FROM %s AS build\nWORKDIR /app\nRUN python -m venv /venv\n", buildImage)
	if install != "" {
		fmt.Fprintf(&b, "%sRUN --mount=type=cache,target=/root/.cache/pip %s\n", copies, install)
	}
	fmt.Fprintf(&b, `
FROM %s
WORKDIR /app
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PORT=%d
COPY --from=build /venv /venv
COPY . .
`, image, Port)
	if p.has("manage.py") && strings.Contains(strings.ToLower(requirements), "whitenoise") {
		b.WriteString("RUN python manage.py collectstatic --noinput\n")
	}
	fmt.Fprintf(&b, "EXPOSE %d\nUSER 65532:65532\n%s", Port, run(start))
	return b.String(), nil
}

var pythonNumber = regexp.MustCompile(`3\.(\d+)`)

// pythonVersion returns the release line that the project asks for.
func (p *project) pythonVersion() (string, error) {
	for _, f := range []string{".python-version", "runtime.txt"} {
		text, err := p.read(f)
		if err != nil {
			return "", err
		}
		if m := pythonNumber.FindString(text); m != "" {
			p.because("Python %s: %s says so", m, f)
			return m, nil
		}
	}
	text, err := p.read("pyproject.toml")
	if err != nil {
		return "", err
	}
	for _, line := range strings.Split(text, "\n") {
		key, value, _ := strings.Cut(line, "=")
		if strings.TrimSpace(key) != "requires-python" && strings.TrimSpace(key) != "python" {
			continue
		}
		if m := pythonNumber.FindStringSubmatch(value); m != nil && (len(m[1]) > 1 && m[1] > "11") {
			p.because("Python 3.13: pyproject.toml asks for %s", strings.TrimSpace(value))
			return "3.13", nil
		}
	}
	return "3.11", nil
}

// pythonRequirements returns the text that names the packages.
func (p *project) pythonRequirements() (string, error) {
	var all strings.Builder
	for _, f := range []string{"requirements.txt", "pyproject.toml", "setup.py", "setup.cfg"} {
		text, err := p.read(f)
		if err != nil {
			return "", err
		}
		all.WriteString(text + "\n")
	}
	return all.String(), nil
}

// requires tells whether a package is named, not only one whose name begins the
// same.
func requires(requirements, pkg string) bool {
	ok, err := regexp.MatchString(`(?im)(^|["'\s])`+regexp.QuoteMeta(pkg)+`(\[[^\]]*\])?\s*($|[=<>~!;"',\s])`, requirements)
	return err == nil && ok
}

// variable finds the application object that a module makes.
var variable = regexp.MustCompile(`(?m)^(\w+)\s*(?::\s*\w+\s*)?=\s*(Flask|FastAPI|Starlette|Quart|Sanic|Litestar|Bottle|Dash|get_wsgi_application|get_asgi_application|falcon\.(?:asgi\.)?App|create_app)\(`)

// pythonStart returns the command that serves.
func (p *project) pythonStart(requirements string) (string, error) {
	if p.web != "" {
		return p.web, nil
	}
	gunicorn, uvicorn := requires(requirements, "gunicorn"), requires(requirements, "uvicorn")
	if p.has("manage.py") {
		return p.djangoStart(gunicorn)
	}
	file := p.first(append(slices.Clone(pythonEntries), "src/main.py", "src/app.py"))
	if file == "" {
		return "", fmt.Errorf("%w: this is Python, but nothing says how to start: looked for a Procfile, manage.py, %s; add a Procfile: web: COMMAND", ErrUnknown, strings.Join(pythonEntries, ", "))
	}
	text, err := p.read(file)
	if err != nil {
		return "", err
	}
	dotted := strings.ReplaceAll(strings.TrimSuffix(file, ".py"), "/", ".")
	m := variable.FindStringSubmatch(text)
	if m != nil {
		object := dotted + ":" + m[1]
		p.because("it serves %s", object)
		async := slices.Contains([]string{"FastAPI", "Starlette", "Quart", "Litestar", "get_asgi_application", "falcon.asgi.App"}, m[2])
		switch {
		case gunicorn && async && uvicorn:
			return "gunicorn --bind 0.0.0.0:$PORT --worker-class uvicorn.workers.UvicornWorker " + object, nil
		case uvicorn && (async || !gunicorn):
			return "uvicorn --host 0.0.0.0 --port $PORT " + object, nil
		case gunicorn:
			return "gunicorn --bind 0.0.0.0:$PORT " + object, nil
		case !strings.Contains(text, "__main__") && m[2] == "Flask":
			return "flask --app " + dotted + " run --host 0.0.0.0 --port $PORT", nil
		case !strings.Contains(text, "__main__") && m[2] == "FastAPI" && requires(requirements, "fastapi"):
			return "fastapi run --host 0.0.0.0 --port $PORT " + file, nil
		}
	}
	p.because("it starts with %s", file)
	return "python " + file, nil
}

// djangoStart finds the module that Django serves with.
func (p *project) djangoStart(gunicorn bool) (string, error) {
	found, err := fs.Glob(p.fs, "*/wsgi.py")
	if err != nil {
		return "", fmt.Errorf("look for wsgi.py: %w", err)
	}
	if gunicorn && len(found) == 1 {
		object := path.Dir(found[0]) + ".wsgi"
		p.because("Django: there is manage.py, and it serves %s", object)
		return "gunicorn --bind 0.0.0.0:$PORT " + object, nil
	}
	p.because("Django: there is manage.py; add gunicorn to the requirements for a server made for production")
	return "python manage.py runserver --noreload 0.0.0.0:$PORT", nil
}
