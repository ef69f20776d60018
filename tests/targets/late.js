// Installs its SIGHUP handler late, and notes each signal. Usage: late.js MILLISECONDS NOTES; fewer than 0 is never.
const { appendFileSync } = require('node:fs');

const [milliseconds, notes] = [Number(process.argv[2]), process.argv[3]];
const install = () => process.on('SIGHUP', () => appendFileSync(notes, 'hup\n'));

if (milliseconds === 0) install();
if (milliseconds > 0) setTimeout(install, milliseconds);
setInterval(() => {}, 60000);
