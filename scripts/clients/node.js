// Files by promises, streams, child processes and worker threads, sockets and HTTP: prints what came of it in one line.
const { createHash } = require("crypto");
const { execFile } = require("child_process");
const { Worker } = require("worker_threads");
const { once } = require("events");
const fs = require("fs"), fsp = fs.promises, http = require("http"), net = require("net"), path = require("path");

const dir = process.argv[2];
const sum = createHash("sha256");
const digest = (bytes) => createHash("sha256").update(bytes).digest("hex").slice(0, 12);
const count = (n) => [...Array(n).keys()];
const failure = (promise) => promise.then(() => "none", (e) => e.code);

async function oneFile(i) {
  const file = path.join(dir, "f" + i);
  const content = Buffer.alloc(100000 + i * 1000);
  for (let k = 0; k < content.length; k += 97) content[k] = k * i;
  await fsp.writeFile(file, content);
  const handle = await fsp.open(file, "r+");
  await handle.write(Buffer.from("hello"), 0, 5, 1000);
  await handle.writev([Buffer.from("a"), Buffer.from("bc")], 5000);
  await handle.sync();
  await handle.datasync();
  const size = (await handle.stat()).size;
  const head = Buffer.alloc(2000);
  await handle.read(head, 0, 2000, 0);
  await handle.truncate(90000);
  await handle.close();
  await fsp.link(file, file + ".l");
  await fsp.symlink(file, file + ".s");
  await fsp.rename(file + ".l", file + ".r");
  await fsp.mkdir(file + ".d");
  const link = (await fsp.lstat(file + ".s")).isSymbolicLink();
  const failures = await Promise.all([
    failure(fsp.stat(file + ".none")), failure(fsp.unlink(file + ".none")),
    failure(fsp.mkdir(file + ".d")), failure(fsp.open(file + "/x")),
  ]);
  await fsp.unlink(file + ".s");
  await fsp.rmdir(file + ".d");
  return [i, size, link, digest(head), digest(await fsp.readFile(file + ".r")), ...failures].join();
}

async function files() {
  sum.update((await Promise.all(count(48).map(oneFile))).join());
  for (const i of count(600)) {
    const file = path.join(dir, "s" + (i % 50));
    await fsp.writeFile(file, String(i));
    sum.update(await fsp.readFile(file, "utf8"));
  }
}

async function echoes() {
  const server = net.createServer((socket) => socket.pipe(socket)).listen(0, "127.0.0.1");
  await once(server, "listening");
  let answers = 0;
  const client = async (i) => {
    const socket = net.connect(server.address().port, "127.0.0.1");
    await once(socket, "connect");
    let left = 50, got = 0;
    socket.write("x".repeat(1000 + i));
    socket.on("data", (bytes) => {
      got += bytes.length;
      if (got < 1000 + i) return;
      got = 0;
      answers++;
      if (--left) socket.write("x".repeat(1000 + i));
      else socket.end();
    });
    await once(socket, "close");
  };
  await Promise.all(count(40).map(client));
  server.close();
  return answers;
}

async function pages() {
  const server = http.createServer((request, response) => {
    fs.createReadStream(path.join(dir, "f" + request.url.slice(1))).pipe(response);
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  const get = (i) => new Promise((resolve, reject) => {
    const where = { port: server.address().port, host: "127.0.0.1", path: "/" + i, agent: false };
    http.get(where, async (response) => {
      const hash = createHash("sha256");
      for await (const bytes of response) hash.update(bytes);
      resolve(hash.digest("hex"));
    }).on("error", reject);
  });
  for (const round of count(6)) sum.update((await Promise.all(count(16).map((i) => get((round * 16 + i) % 48)))).join());
  server.close();
}

async function children() {
  const code = (i) => `require("fs").promises.readFile(${JSON.stringify(path.join(dir, "f" + i))}).then((b) => console.log(b.length))`;
  const child = (i) => new Promise((resolve, reject) =>
    execFile(process.execPath, ["-e", code(i)], (e, out) => (e ? reject(e) : resolve(out))));
  sum.update((await Promise.all(count(4).map(child))).join());
  const work = `const { readFile } = require("fs").promises, { parentPort, workerData } = require("worker_threads");
    (async () => { let n = 0; for (let i = 0; i < 200; i++) n += (await readFile(workerData)).length; parentPort.postMessage(n); })()`;
  const worker = async (i) => (await once(new Worker(work, { eval: true, workerData: path.join(dir, "f" + i) }), "message"))[0];
  sum.update((await Promise.all(count(3).map(worker))).join());
}

(async () => {
  await files();
  const answers = await echoes();
  await pages();
  await children();
  console.log(`${answers} answers, all else ${sum.digest("hex").slice(0, 16)}`);
})().catch((e) => { console.error(e); process.exit(1); });
