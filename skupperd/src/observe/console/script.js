'use strict';
// Names come from other sites. They are only ever inserted as text, never as markup.
(() => {
  const SVG = 'http://www.w3.org/2000/svg';
  const POLL = 2000;              // milliseconds between two requests for data
  const MAX_CONNECTIONS = 200;    // rows in the table
  const WIDTH = 960, HEIGHT = 480;
  const $ = (id) => document.getElementById(id);
  const setText = (node, text) => { if (node.textContent !== text) node.textContent = text; };

  // The token is in the fragment, which browsers do not send. It is removed from the address at once.
  let token = location.hash.length > 16 ? location.hash.slice(1) : '';
  try {
    if (token) sessionStorage.setItem('token', token);
    else token = sessionStorage.getItem('token') || '';
  } catch { /* without session storage the page works until it is reloaded */ }
  if (location.hash.length > 16) history.replaceState(null, '', location.pathname);

  async function ask(path) {
    const headers = token ? { Authorization: 'Bearer ' + token } : {};
    const answer = await fetch(path, { headers, cache: 'no-store', signal: AbortSignal.timeout(8000) });
    if (answer.status === 403 && path.includes('connections')) return { refused: await answer.text() };
    if (!answer.ok) throw new Error(path + ': ' + answer.status + ' ' + (await answer.text()).slice(0, 200));
    return answer.json();
  }

  // ---- formats ----

  function size(n) {
    const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
    let unit = 0;
    for (; n >= 1024 && unit < units.length - 1; unit++) n /= 1024;
    return (unit && n < 100 ? n.toFixed(1) : Math.round(n)) + ' ' + units[unit];
  }
  const rate = (n) => (n ? size(n) + '/s' : '');
  function time(micros) {
    const s = micros / 1e6;
    if (s < 60) return s.toFixed(s < 10 ? 1 : 0) + ' s';
    return s < 3600 ? Math.floor(s / 60) + ' min' : Math.floor(s / 3600) + ' h ' + Math.floor(s % 3600 / 60) + ' min';
  }
  const count = (n, word) => n + ' ' + word + (n === 1 ? '' : 's');
  const by = (field) => (a, b) => (a[field] < b[field] ? -1 : a[field] > b[field] ? 1 : 0);
  const endpoint = (host, port) => (port ? (host.includes(':') ? '[' + host + ']' : host) + ':' + port : host);

  // ---- tables ----

  // Cells stay and only their text changes, so that a screen reader keeps its position.
  function table(id, heads, rows, none) {
    const t = $(id);
    if (!t.tHead) {
      const row = t.createTHead().insertRow();
      for (const head of heads) {
        const cell = document.createElement('th');
        cell.scope = 'col';
        cell.textContent = head.replace('#', '');
        if (head.startsWith('#')) cell.className = 'number';
        row.append(cell);
      }
      t.createTBody();
    }
    const body = t.tBodies[0];
    const all = rows.length ? rows : [[none]];
    while (body.rows.length > all.length) body.deleteRow(-1);
    all.forEach((cells, n) => {
      const row = body.rows[n] || body.insertRow();
      while (row.cells.length > cells.length) row.deleteCell(-1);
      cells.forEach((value, k) => {
        let cell = row.cells[k];
        if (!cell) {
          cell = document.createElement(k ? 'td' : 'th');
          if (!k) cell.scope = 'row';
          row.append(cell);
        }
        const [text, kind] = Array.isArray(value) ? value : [value, ''];
        setText(cell, String(text));
        cell.title = String(text).length > 40 ? String(text) : '';
        cell.className = rows.length ? kind || ((heads[k] || '').startsWith('#') ? 'number' : '') : 'none';
        cell.colSpan = rows.length ? 1 : heads.length;
      });
    });
  }

  // ---- layout ----

  let positions = new Map(), drawn = '';
  // Force-directed: sites repel each other and links attract them. The start is deterministic.
  function layout(ids, pairs) {
    const n = ids.length, index = new Map(ids.map((id, i) => [id, i]));
    const p = ids.map((id, i) => {
      const old = positions.get(id);
      if (old) return { ...old };
      if (n === 1) return { x: WIDTH / 2, y: HEIGHT / 2 };
      const turn = (2 * Math.PI * i) / n - Math.PI / 2;
      return { x: WIDTH / 2 + 330 * Math.cos(turn), y: HEIGHT / 2 + 165 * Math.sin(turn) };
    });
    const links = pairs.map(([a, b]) => [index.get(a), index.get(b)]);
    const want = Math.min(210, 0.8 * Math.sqrt((WIDTH * HEIGHT) / Math.max(n, 1)));
    const rounds = n > 1 ? Math.min(250, Math.ceil(15000 / n)) : 0;
    for (let round = 0; round < rounds; round++) {
      const f = p.map(() => ({ x: 0, y: 0 }));
      const push = (a, b, force) => {
        let dx = p[a].x - p[b].x, dy = p[a].y - p[b].y;
        // Two sites at the same position get different directions.
        if (!dx && !dy) { dx = a - b; dy = 0.5; }
        const far = Math.hypot(dx, dy), k = force(far) / far;
        f[a].x += dx * k; f[a].y += dy * k; f[b].x -= dx * k; f[b].y -= dy * k;
      };
      for (let a = 0; a < n; a++) for (let b = 0; b < a; b++) push(a, b, (far) => (want * want) / far);
      for (const [a, b] of links) push(a, b, (far) => -(far * far) / want);
      const most = 40 * (1 - round / rounds) + 1;
      for (let a = 0; a < n; a++) {
        f[a].x += (WIDTH / 2 - p[a].x) * 0.25; f[a].y += (HEIGHT / 2 - p[a].y) * 0.5;
        const far = Math.hypot(f[a].x, f[a].y), k = far > most ? most / far : 1;
        p[a].x += f[a].x * k; p[a].y += f[a].y * k;
      }
    }
    // Scale into the frame, then separate sites that overlap.
    for (const [way, low, high] of [['x', 70, WIDTH - 70], ['y', 35, HEIGHT - 50]]) {
      const at = p.map((q) => q[way]), from = Math.min(...at), to = Math.max(...at);
      const scale = Math.min(1, (high - low) / (to - from || 1)), middle = (from + to) / 2;
      for (const q of p) q[way] = (low + high) / 2 + (q[way] - middle) * scale;
    }
    const room = n > 30 ? 26 : 70;
    for (let round = 0, close = true; close && round < 200; round++) {
      close = false;
      for (let a = 0; a < n; a++) for (let b = 0; b < a; b++) {
        let dx = p[a].x - p[b].x, dy = p[a].y - p[b].y, far = Math.hypot(dx, dy);
        if (far >= room - 0.5) continue;
        if (far < 1) { dx = 1; dy = a % 2 ? 1 : -1; far = Math.SQRT2; }
        const k = (room - far) / far / 2;
        for (const [q, sign] of [[p[a], 1], [p[b], -1]]) {
          q.x = Math.min(WIDTH - 40, Math.max(40, q.x + sign * dx * k));
          q.y = Math.min(HEIGHT - 40, Math.max(25, q.y + sign * dy * k));
        }
        close = true;
      }
    }
    positions = new Map(ids.map((id, i) => [id, { x: Math.round(p[i].x), y: Math.round(p[i].y) }]));
  }

  // ---- diagram ----

  let chosen = null, network = null;
  // Elements by what they show. Elements that stay keep the focus.
  const elements = { edges: new Map(), flows: new Map(), nodes: new Map() };
  function element(group, key, make) {
    let made = elements[group].get(key);
    if (!made) {
      made = make();
      elements[group].set(key, made);
      $(group).append(made);
    }
    return made;
  }
  function removeOthers(group, keys) {
    for (const [key, made] of elements[group]) {
      if (!keys.has(key)) { made.remove(); elements[group].delete(key); }
    }
  }
  function svg(name, attributes, ...children) {
    const made = document.createElementNS(SVG, name);
    set(made, attributes);
    made.append(...children);
    return made;
  }
  function set(node, attributes) {
    for (const [name, value] of Object.entries(attributes)) {
      if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
    }
  }

  function drawDiagram() {
    const { sites, pairs, flows } = network;
    const ids = sites.map((s) => s.identity);
    const shape = JSON.stringify([ids, pairs.map((p) => [p.a, p.b])]);
    if (shape !== drawn) {
      layout(ids, pairs.map((p) => [p.a, p.b]));
      drawn = shape;
    }
    const many = sites.length > 30, radius = many ? 8 : 20;
    $('map').classList.toggle('many', many);
    const near = (a, b) => !chosen || a === chosen || b === chosen;

    for (const pair of pairs) {
      const [a, b] = [positions.get(pair.a), positions.get(pair.b)];
      const line = element('edges', pair.key, () => svg('line', {}, svg('title', {})));
      set(line, { x1: a.x, y1: a.y, x2: b.x, y2: b.y,
        class: 'edge' + (pair.up ? '' : ' down') + (near(pair.a, pair.b) ? '' : ' faint') });
      setText(line.firstChild, name(pair.a) + ' and ' + name(pair.b) + ': link ' + (pair.up ? 'up' : 'down'));
    }
    removeOthers('edges', new Set(pairs.map((p) => p.key)));

    const open = flows.filter((f) => f.open > 0 && f.source !== f.dest && positions.has(f.source) && positions.has(f.dest));
    for (const flow of open) {
      const [a, b] = [positions.get(flow.source), positions.get(flow.dest)];
      const dx = b.x - a.x, dy = b.y - a.y, far = Math.hypot(dx, dy) || 1, bend = Math.min(40, far / 4);
      const m = { x: (a.x + b.x) / 2 - (dy / far) * bend, y: (a.y + b.y) / 2 + (dx / far) * bend };
      const g = element('flows', flow.key, () =>
        svg('g', {}, svg('path', {}, svg('title', {})), svg('text', { class: 'rate' })));
      const [path, label] = g.children;
      set(g, { class: near(flow.source, flow.dest) ? '' : 'faint' });
      set(path, { class: 'flow', d: `M${a.x} ${a.y}Q${m.x} ${m.y} ${b.x} ${b.y}`,
        'stroke-width': Math.min(9, 2 + Math.log2(1 + flow.bytes / 4096)).toFixed(1) });
      setText(path.firstChild, name(flow.source) + ' to ' + name(flow.dest) + ': ' + count(flow.open, 'open connection'));
      set(label, { x: (m.x + (a.x + b.x) / 2) / 2, y: (m.y + (a.y + b.y) / 2) / 2 });
      setText(label, many ? '' : count(flow.open, 'connection') + (flow.bytes ? ', ' + rate(flow.bytes) : ''));
    }
    removeOthers('flows', new Set(open.map((f) => f.key)));

    for (const site of sites) {
      const id = site.identity, at = positions.get(id);
      const g = element('nodes', id, () => {
        const made = svg('g', { tabindex: 0, role: 'button' }, svg('title', {}), svg('circle', {}), svg('text', {}));
        made.dataset.site = id;
        made.addEventListener('click', () => choose(chosen === id ? null : id));
        made.addEventListener('keydown', (event) => key(event, id));
        return made;
      });
      const linked = pairs.filter((p) => p.up && (p.a === id || p.b === id)).map((p) => name(p.a === id ? p.b : p.a)).sort();
      const words = 'Site ' + site.name + (site.local ? ', on this host' : '') + (linked.length ? ', linked with ' + linked.join(', ') : ', without links');
      set(g, { class: 'node' + (site.local ? ' here' : '') + (chosen === id ? ' chosen' : ''),
        transform: `translate(${at.x} ${at.y})`, 'aria-label': words, 'aria-pressed': chosen === id });
      setText(g.children[0], words);
      set(g.children[1], { r: radius });
      set(g.children[2], { y: radius + (many ? 9 : 17) });
      setText(g.children[2], site.name.length > 24 ? site.name.slice(0, 23) + '…' : site.name);
    }
    removeOthers('nodes', new Set(ids));
  }

  function key(event, id) {
    const to = (next) => { event.preventDefault(); if (next) elements.nodes.get(next).focus(); };
    const ways = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] };
    if (event.key === 'Enter' || event.key === ' ') { event.preventDefault(); choose(chosen === id ? null : id); }
    else if (event.key === 'Escape') choose(null);
    else if (ways[event.key]) {
      const [x, y] = ways[event.key], from = positions.get(id);
      let best = null, least = Infinity;
      for (const [other, p] of positions) {
        const ahead = (p.x - from.x) * x + (p.y - from.y) * y;
        const aside = Math.abs((p.x - from.x) * y) + Math.abs((p.y - from.y) * x);
        if (other !== id && ahead > 0 && ahead + 2 * aside < least) { least = ahead + 2 * aside; best = other; }
      }
      to(best);
    }
  }

  function choose(id) {
    chosen = id;
    show();
  }

  // ---- data ----

  let names = new Map();
  const name = (id) => names.get(id) || id;
  let before = null;

  // Rates between sites and of services: differences between two polls.
  function traffic(services, now) {
    const mine = new Set(services.map((s) => s.siteId));
    const counted = new Map(), flows = new Map(), keys = new Map();
    for (const s of services) {
      const listener = s.side === 'listener';
      // A connection between two sites of this host is counted at both: take the listener's.
      if (!listener && mine.has(s.remoteSiteId)) continue;
      const id = [s.namespace, s.side, s.routingKey, s.remoteSiteId].join('\n');
      counted.set(id, s);
      const old = before && before.counted.get(id), seconds = before ? (now - before.now) / 1000 : 1;
      const more = (field) => (before ? Math.max(0, s[field] - (old ? old[field] : 0)) / seconds : 0);
      const part = { open: Math.max(0, s.opened - s.closed), fresh: more('opened'),
        sent: more('sentBytes'), received: more('receivedBytes') };
      const [source, dest] = listener ? [s.siteId, s.remoteSiteId] : [s.remoteSiteId, s.siteId];
      const add = (map, key, first) => {
        const sum = map.get(key) || { ...first, key, open: 0, fresh: 0, sent: 0, received: 0, bytes: 0 };
        for (const field of Object.keys(part)) sum[field] += part[field];
        sum.bytes = sum.sent + sum.received;
        map.set(key, sum);
      };
      add(flows, source + '\n' + dest, { source, dest });
      add(keys, s.routingKey, {});
    }
    before = { counted, now };
    return { flows: [...flows.values()], keys };
  }

  function update(answers, now) {
    const [sites, links, listeners, connectors, services, carried, connections] = answers;
    const { flows, keys } = traffic(carried.results, now);
    const known = sites.results.sort(by('identity'));
    names = new Map(known.map((s) => [s.identity, s.name || s.identity]));
    const pairs = new Map();
    for (const link of links.results) {
      const [a, b] = [link.sourceSiteId, link.destinationSiteId].sort();
      if (!names.has(a) || !names.has(b) || a === b) continue;
      const key = a + '\n' + b, pair = pairs.get(key) || { a, b, key, up: false };
      pair.up ||= link.status === 'up';
      pairs.set(key, pair);
    }
    network = { sites: known, pairs: [...pairs.values()].sort(by('key')), links: links.results, flows, keys,
      listeners: listeners.results, connectors: connectors.results, services: services.results, connections };
  }

  function show() {
    if (!network) return;
    const { sites, links, flows, keys, listeners, connectors, services, connections } = network;
    if (chosen && !names.has(chosen)) chosen = null;
    const of = (...ids) => !chosen || ids.includes(chosen);
    drawDiagram();
    $('chosen').hidden = !chosen;
    setText($('chosen-name'), chosen ? 'Showing only what concerns ' + name(chosen) + '.' : '');
    const sum = (field) => flows.reduce((all, f) => all + f[field], 0);
    setText($('summary'), [count(sites.length, 'site'), count(links.filter((l) => l.status === 'up').length, 'link') + ' up',
      count(services.length, 'service'), count(sum('open'), 'open connection'), rate(sum('bytes')) || '0 B/s'].join(' · '));

    table('sites', ['Name', 'Namespace', 'Platform', 'Version', 'Identity', '#Listeners', '#Connectors'],
      sites.filter((s) => of(s.identity)).map((s) => [s.name, s.namespace, s.platform, s.version, s.identity,
        listeners.filter((l) => l.siteId === s.identity).length,
        connectors.filter((c) => c.siteId === s.identity).length]), 'No sites');
    table('links', ['From', 'To', 'Name', 'State', '#Cost', 'Error'],
      links.filter((l) => of(l.sourceSiteId, l.destinationSiteId)).map((l) => [name(l.sourceSiteId),
        l.destinationSiteId ? name(l.destinationSiteId) : '', l.name, [l.status, l.status],
        l.cost === null ? '' : l.cost, l.message]), 'No links');
    const at = (ends, key) => [...new Set(ends.filter((e) => e.routingKey === key).map((e) => name(e.siteId)))].sort().join(', ');
    const meant = services.filter((s) => !chosen ||
      listeners.concat(connectors).some((e) => e.routingKey === s.name && e.siteId === chosen));
    table('services', ['Routing key', 'Listeners at', 'Connectors at', '#Open', '#New/s', '#Sent', '#Received'],
      meant.map((s) => {
        const k = keys.get(s.name) || { open: 0, fresh: 0, sent: 0, received: 0 };
        return [s.name, at(listeners, s.name), at(connectors, s.name) || ['none', 'down'], k.open,
          k.fresh ? k.fresh.toFixed(1) : '', rate(k.sent), rate(k.received)];
      }), 'No services');
    const refused = connections.refused || '';
    $('private').hidden = !refused;
    setText($('private'), refused);
    table('connections', ['Client', 'Process', 'From', 'Routing key', 'To', 'Server', '#Sent', '#Received', '#Open for'],
      (connections.results || []).filter((c) => of(c.sourceSiteId, c.destSiteId)).map((c) => [
        endpoint(c.sourceHost, c.sourcePort), c.sourceProcessName || (c.sourceUser === null || c.sourceUser === undefined ? '' : 'uid ' + c.sourceUser),
        c.sourceSiteName, c.routingKey, c.destSiteName,
        endpoint(c.destHost, c.destPort), size(c.octetCount), size(c.octetReverseCount), time(c.duration)]),
      refused ? 'Not available' : 'No open connections');
  }

  // ---- polling ----

  const PATHS = ['sites', 'routerlinks', 'listeners', 'connectors', 'services'].map((what) => 'api/v2alpha1/' + what)
    .concat(['services', 'api/v2alpha1/connections?state=active&sortBy=startTime.desc&limit=' + MAX_CONNECTIONS]);
  let paused = false, lost = false;

  async function poll() {
    if (!paused && !document.hidden) {
      try {
        const answers = await Promise.all(PATHS.map(ask));
        update(answers, performance.now());
        show();
        lost = false;
      } catch (error) {
        lost = true;
        setText($('state'), 'No response from skupperd: ' + error.message);
      }
      $('state').classList.toggle('lost', lost);
      if (!lost) setText($('state'), 'Live');
      document.body.dataset.looks = String(Number(document.body.dataset.looks || 0) + 1);
    }
    setTimeout(poll, POLL);
  }

  $('pause').addEventListener('click', () => {
    paused = !paused;
    $('pause').setAttribute('aria-pressed', paused);
    setText($('pause'), paused ? 'Resume' : 'Pause');
    setText($('state'), paused ? 'Paused' : 'Live');
  });
  $('all').addEventListener('click', () => { choose(null); });
  document.addEventListener('keydown', (event) => { if (event.key === 'Escape') choose(null); });
  poll();
})();
