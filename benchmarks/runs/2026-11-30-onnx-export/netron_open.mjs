// Opens files with the parsers of Netron, without a browser, and counts what they find.
//
//     node netron_open.mjs FOLDER_OF_NETRON FILE...
//
// FOLDER_OF_NETRON is the package folder of PyPI's netron, with a package.json of {"type": "module"} in it.
import fs from 'node:fs';
import path from 'node:path';
import { pathToFileURL } from 'node:url';

const [folder, ...files] = process.argv.slice(2);
const load = (id) => import(pathToFileURL(path.resolve(folder, `${id}.js`)));
const { BinaryStream } = await load('base');
const { ModelFactoryService } = await load('view');
const fail = (error) => { throw error; };
const asset = (file) => fs.promises.readFile(path.resolve(folder, file), 'utf-8');
const service = new ModelFactoryService({ require: load, asset, event: () => {}, exception: fail });
for (const file of files) {
    const fetch = (name) => fail(new Error(`${name} is asked for`));
    const stream = new BinaryStream(new Uint8Array(fs.readFileSync(file)));
    const context = { identifier: path.basename(file), stream, require: load, asset, fetch, error: fail };
    try {
        const model = await service.open(context);
        const [graph] = model.modules;
        const nodes = graph.nodes;
        const types = new Set(nodes.flatMap((node) => node.inputs.flatMap((input) => input.value).map((value) => value.type?.toString() ?? '')));
        const unknown = nodes.filter((node) => !node.type || node.type.name === undefined).length;
        const kinds = [...types].map((type) => type.replace(/\[.*/, '')).filter((type) => type);
        const keys = model.metadata.map((entry) => entry.name).filter((name) => name.startsWith('bitpact'));
        console.log(`${path.basename(file)}: ${model.format}, ${nodes.length} nodes (${unknown} unknown), tensors of ${[...new Set(kinds)].sort().join(', ')}, metadata ${keys.length}`);
    } catch (error) {
        console.log(`${path.basename(file)}: ${error.message}`);
    }
}
