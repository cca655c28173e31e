// A poll counts votes and tells whoever watches.
export class Poll {
  #votes;
  #watchers = new Set();

  constructor(question, options) {
    this.question = question;
    this.#votes = new Map(options.map((option) => [option, 0]));
  }

  // results are [option, votes] pairs in the order of the options.
  get results() {
    return [...this.#votes];
  }

  // vote counts one vote and returns whether there is such an option.
  vote(option) {
    if (!this.#votes.has(option)) return false;
    this.#votes.set(option, this.#votes.get(option) + 1);
    for (const watcher of this.#watchers) watcher(this.results);
    return true;
  }

  // watch calls watcher after every vote until the function it returns is called.
  watch(watcher) {
    this.#watchers.add(watcher);
    return () => this.#watchers.delete(watcher);
  }
}
